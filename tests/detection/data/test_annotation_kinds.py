"""Every kind of fault in annotations: it is found, counted and named, and nothing else is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from backbones import UserError
from detection.data.annotations.file import AnnotationFile
from detection.data.annotations.kinds import KINDS, kinds_table
from detection.data.annotations.structure import class_findings, classes_in
from detection.data.findings import Finding, report
from tests.detection.annotation_files import (
    HEIGHT,
    WIDTH,
    Annotation,
    Content,
    content,
    findings,
    rle,
    spoilt,
)

ALL = 24


def title(key: str) -> str:
    return KINDS[key].title.format(other="x", most=2, what="mask")


def found(key: str, spoilt: Content, **options: Any) -> Finding:
    """The finding of a kind, which is the only one."""
    everything = findings(spoilt, **options)
    assert list(everything) == [title(key)]
    return everything[title(key)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masks", [True, False])
def test_nothing_is_found_in_what_is_right(training: bool, masks: bool) -> None:
    assert findings(content(), training=training, masks=masks) == {}
    assert findings(content(masks=False), training=training, masks=False) == {}


def corners(box: list[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def centre(box: list[float]) -> list[float]:
    return [box[0] + box[2] / 2, box[1] + box[3] / 2, box[2], box[3]]


BOXES: dict[str, Callable[[list[float]], list[float]]] = {
    "box_corners": corners,
    "box_centre": centre,
    "box_normalised": lambda b: [b[0] / WIDTH, b[1] / HEIGHT, b[2] / WIDTH, b[3] / HEIGHT],
    "box_negative": lambda b: [b[0], b[1], -b[2], b[3]],
    "box_empty": lambda b: [b[0], b[1], b[2], 0],
    "box_outside": lambda b: [b[0] + 900, *b[1:]],
}


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("key", BOXES)
def test_boxes_of_another_form(key: str, masks: bool) -> None:
    """All of them are refused, whether or not there are masks that say better."""
    change = BOXES[key]
    wrong = spoilt(lambda item: item.update(bbox=change(item["bbox"])), ALL, masks)
    finding = found(key, wrong, masks=masks)
    assert finding.severity == "error"
    # A mask's extent does not tell some pairs of readings apart where they overlap much.
    assert ALL - 3 <= finding.count <= ALL
    assert "of '1.jpg', bbox [" in finding.example


@pytest.mark.parametrize("key", ["box_negative", "box_empty", "box_outside"])
def test_some_wrong_boxes_are_odd(key: str) -> None:
    change = BOXES[key]
    finding = found(key, spoilt(lambda item: item.update(bbox=change(item["bbox"])), 2))
    assert (finding.severity, finding.count) == ("oddity", 2)
    assert "AP counts them" in finding.advice


def test_boxes_beyond_the_image() -> None:
    wide = spoilt(lambda item: item.update(bbox=[100, 5, 40, 20]), 1, masks=False)
    assert found("box_beyond", wide, masks=False).count == 1


def test_boxes_that_cover_their_images_are_no_corners() -> None:
    """One large object an image: wider than its left side, and higher than its top."""
    large = content(masks=False)
    for number, item in enumerate(large["annotations"]):
        margin = number % 5
        item["bbox"] = [margin, 5 - margin, WIDTH - 2 * margin, HEIGHT - 10 + margin]
        item["area"] = item["bbox"][2] * item["bbox"][3]
    assert findings(large, masks=False) == {}


def test_boxes_in_percent() -> None:
    data = content(masks=False)
    for image in data["images"]:
        image |= {"width": 1200, "height": 900}
    for item in data["annotations"]:
        x, y, w, h = item["bbox"]
        item["bbox"] = [100 * x / WIDTH, 100 * y / HEIGHT, 100 * w / WIDTH, 100 * h / HEIGHT]
    assert found("box_percent", data, masks=False).severity == "oddity"


def test_boxes_and_masks_that_disagree() -> None:
    """As when the masks are of images of half the size."""

    def halve(item: Annotation) -> None:
        item["segmentation"] = [[value / 2 for value in item["segmentation"][0]]]

    assert found("mask_off_box", spoilt(halve, 5)).count == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("box_missing", None),
        ("box_malformed", [1, 2, 3]),
        ("box_malformed", [1, 2, math.nan, 4]),
        ("box_malformed", [1, 2, 3, 4, 90]),
        ("box_malformed", [[1, 2, 3, 4]]),
        ("box_malformed", [1, 2, 1e300, 4]),
    ],
)
def test_boxes_that_are_none(key: str, value: Any) -> None:
    finding = found(key, spoilt(lambda item: item.update(bbox=value), 1))
    assert (finding.severity, finding.count) == ("error", 1)


MASKS: dict[str, tuple[Any, str]] = {
    "mask_short": ([[4, 5, 20, 30]], "mask_missing"),
    "mask_odd": ([[4, 5, 20, 5, 20, 30, 7]], "mask_missing"),
    "mask_flat": ([[4, 5, 20, 5, 40, 5]], "mask_missing"),
    "mask_empty": ({"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}, "mask_missing"),
}


@pytest.mark.parametrize("key", MASKS)
def test_masks_that_leave_a_box_alone(key: str) -> None:
    mask, besides = MASKS[key]
    wrong = findings(spoilt(lambda item: item.update(segmentation=mask), 3))
    assert {name: (f.severity, f.count) for name, f in wrong.items()} == {
        title(key): ("oddity", 3),
        title(besides): ("oddity", 3),
    }
    assert findings(spoilt(lambda item: item.update(segmentation=mask), 3), masks=False) == {}


@pytest.mark.parametrize("mask", [None, [], ""])
def test_objects_with_a_box_only(mask: Any) -> None:
    some = spoilt(lambda item: item.update(segmentation=mask), 3)
    if mask == "":  # text is no mask of any kind
        assert found("mask_malformed", some).severity == "error"
        return
    assert found("mask_missing", some).count == 3
    every = spoilt(lambda item: item.update(segmentation=mask), ALL)
    finding = found("mask_none_at_all", every)
    assert (finding.severity, finding.count) == ("error", ALL)
    assert "set MODEL.MASK_ON False" in finding.advice


@pytest.mark.parametrize(
    ("key", "mask"),
    [
        ("mask_broken", {"size": [HEIGHT, WIDTH], "counts": [5, 9, 4]}),
        ("mask_broken", {"size": [HEIGHT, WIDTH], "counts": [-8, WIDTH * HEIGHT + 8]}),
        ("mask_broken", {"size": [HEIGHT, WIDTH], "counts": "04"}),
        ("mask_broken", {"size": [HEIGHT, WIDTH], "counts": "not such a text"}),
        ("mask_malformed", {"counts": "04"}),
        ("mask_malformed", [["4", "5", "20", "5", "20", "30"]]),
        ("mask_malformed", 7),
        ("mask_malformed", [[0, 0, 1e12, 0, 1e12, 1e12]]),
        ("mask_malformed", [[0, 0, 10**30, 0, 1, 1]]),
        ("mask_other_size", {"size": [WIDTH, HEIGHT], "counts": [0, WIDTH * HEIGHT]}),
    ],
)
def test_masks_that_are_refused(key: str, mask: Any) -> None:
    wrong = findings(spoilt(lambda item: item.update(segmentation=mask), 1))
    assert wrong[title(key)].severity == "error"
    assert wrong[title(key)].count == 1


@pytest.mark.parametrize("compressed", [True, False])
def test_encoded_masks(compressed: bool) -> None:
    data = spoilt(lambda item: item.update(segmentation=rle(item, compressed)), 4)
    assert findings(data, MASK_FORMAT="bitmask") == {}
    assert found("mask_encoded", data).count == 4
    for item in data["annotations"]:
        item["iscrowd"] = 1  # crowds are encoded in COCO itself, and nothing is trained on them
    del data["annotations"][5]["iscrowd"]
    assert findings(data) == {}


@pytest.mark.parametrize("area", [0, None, -5, math.nan, "400", KeyError])
def test_areas_that_are_none(area: Any) -> None:
    def change(item: Annotation) -> None:
        item["area"] = area
        if area is KeyError:
            del item["area"]

    wrong = spoilt(change, 6)
    assert found("area_missing", wrong, training=False).count == 6
    assert findings(wrong, training=True) == {}


def test_areas_of_boxes() -> None:
    def triangle(item: Annotation) -> None:
        x, y, w, h = item["bbox"]
        item["segmentation"] = [[x, y, x + w, y, x, y + h]]

    finding = found("area_of_box", spoilt(triangle, 10), training=False)
    data = spoilt(triangle, 10)
    moved = sum(item["area"] > 32**2 >= item["area"] / 2 for item in data["annotations"][:10])
    assert finding.count == 10
    assert moved and f"puts {moved} of them" in finding.advice


def test_areas_of_another_image_size() -> None:
    quarter = spoilt(lambda item: item.update(area=item["area"] / 4), 8)
    assert found("area_other", quarter, training=False).count == 8
    double = spoilt(lambda item: item.update(area=4 * item["area"]), 8, masks=False)
    everything = findings(double, training=False, masks=False)
    assert list(everything) == ["objects whose area is not that of their box"]


def ids(part: str, change: Callable[[Any], Any]) -> Content:
    data = content()
    data[part][1]["id"] = change(data[part][0]["id"])
    return data


STRUCTURE: dict[str, tuple[Callable[[], Content], str, int, str]] = {
    "image_twice": (lambda: ids("images", lambda value: value), "error", 1, "1, of '1.jpg'"),
    "category_twice": (lambda: ids("categories", float), "error", 1, "1.0"),
    "annotation_twice": (lambda: ids("annotations", lambda value: value), "oddity", 1, "1"),
}


@pytest.mark.parametrize("key", STRUCTURE)
def test_ids_that_stand_twice(key: str) -> None:
    make, severity, count, example = STRUCTURE[key]
    finding = findings(make())[title(key)]
    assert (finding.severity, finding.count, finding.example) == (severity, count, example)


@pytest.mark.parametrize("value", [None, True, [1], math.nan, {"a": 1}])
@pytest.mark.parametrize("part", ["images", "categories"])
def test_ids_that_are_none(part: str, value: Any) -> None:
    finding = findings(ids(part, lambda _: value))[title("id_unusable")]
    assert (finding.severity, finding.count) == ("error", 1)
    assert finding.example.endswith(repr(value))


def test_classes_are_compared_where_ids_are_none() -> None:
    file = AnnotationFile("x.json", ids("categories", lambda _: None))
    assert [title for title, _ in classes_in(file)] == ["ant", "cow", "bee"]


@pytest.mark.parametrize("parent", [["a", "b"], {"a": 1}, 3, None])
def test_classes_above_others_as_people_write_them(parent: Any) -> None:
    data = content()
    for item in data["categories"]:
        item["supercategory"] = parent
    assert findings(data) == {}


@pytest.mark.parametrize("make", [str, float, lambda n: -n, lambda n: 2**60 + n, "id {}".format])
def test_ids_of_any_kind_are_right(make: Callable[[int], Any]) -> None:
    data = content()
    for part in ("images", "categories", "annotations"):
        for item in data[part]:
            item["id"] = make(item["id"])
    for item in data["annotations"]:
        item["image_id"] = make(item["image_id"])
        item["category_id"] = make(item["category_id"])
    assert findings(data) == {}


def test_annotations_of_what_is_not_listed() -> None:
    some = found("image_unknown", spoilt(lambda item: item.update(image_id=77), 2))
    assert (some.severity, some.count, some.example) == ("oddity", 2, "annotation 1 of image 77")
    every = spoilt(lambda item: item.update(image_id=str(item["image_id"])), ALL)
    assert findings(every)[title("image_unknown")].severity == "error"
    one = found("category_unknown", spoilt(lambda item: item.update(category_id=9), 1))
    assert (one.severity, one.example) == ("error", "annotation 1 of '1.jpg', category_id 9")


def test_what_stands_twice() -> None:
    data = content()
    data["annotations"].append({**data["annotations"][0], "id": 99})
    finding = found("object_twice", data)
    assert (finding.count, finding.example) == (1, "annotation 99 of '1.jpg'")
    data = content()
    data["images"][1]["file_name"] = "1.jpg"
    assert found("file_twice", data).example == "'1.jpg'"
    ignored = found("ignored", spoilt(lambda item: item.update(ignore=1), 1))
    assert ignored.severity == "error"


@pytest.mark.parametrize("value", [0, "0", False, None, ""])
def test_nothing_is_ignored(value: Any) -> None:
    assert findings(spoilt(lambda item: item.update(ignore=value), ALL)) == {}


@pytest.mark.parametrize("size", [None, "120", 0, math.nan, 120.5])
def test_images_without_a_size(size: Any) -> None:
    data = content()
    data["images"][2]["width"] = size
    finding = found("size_unknown", data)
    assert (finding.severity, finding.count) == ("error", 1)
    assert f"of '3.jpg' are [{HEIGHT}, {size!r}]" in finding.example


@pytest.mark.parametrize(
    ("key", "name", "severity"),
    [
        ("class_twice", "ant", "error"),
        ("class_empty", "  ", "error"),
        ("class_no_text", 5, "error"),
        ("class_no_text", None, "error"),
        ("class_alike", "Ant ", "oddity"),
    ],
)
def test_names_of_classes(key: str, name: Any, severity: str) -> None:
    data = content()
    data["categories"][1]["name"] = name
    assert found(key, data).severity == severity


def test_classes_without_objects() -> None:
    data = content()
    data["categories"].append({"id": 9, "name": "dog"})
    assert found("class_unused", data).example == "'dog' with the id 9"
    dummy = content()
    for item in dummy["categories"]:
        item["supercategory"] = "animals"
    dummy["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
    assert found("class_dummy", dummy).example == "'animals' with the id 0"


def test_classes_of_two_data_sets() -> None:
    ours = [("ant", 1), ("bee", 2)]
    assert class_findings(ours, ours, "train") == []
    (order,) = class_findings([("bee", 1), ("ant", 2)], ours, "train")
    assert (order.severity, order.count, order.kind) == (
        "error",
        2,
        "classes other than those of 'train'",
    )
    assert order.example == "'bee' where it has 'ant', the same classes in another order"
    (more,) = class_findings([*ours, ("cow", 3)], ours, "train")
    assert (more.severity, more.example) == ("error", "3 classes where it has 2")
    (moved,) = class_findings([("ant", 4), ("bee", 7)], ours, "train")
    assert (moved.severity, moved.count, moved.example) == (
        "oddity",
        2,
        "'ant' with 4 where it has 1",
    )


@pytest.mark.parametrize(("training", "key"), [(True, "none_to_train"), (False, "none_to_find")])
def test_sets_without_an_object(training: bool, key: str) -> None:
    """Crowds are no objects to train on, nor to find."""
    none = {**content(), "annotations": []}
    crowds = spoilt(lambda item: item.update(iscrowd=1), ALL)
    for data in (none, crowds):
        finding = findings(data, training=training)[title(key)]
        assert (finding.severity, finding.count) == ("oddity", len(data["images"]))
        assert finding.example == "'1.jpg'"


def test_crowded_images() -> None:
    finding = findings(content(), training=False, DETECTIONS=2)
    (only,) = finding.values()
    assert (only.count, only.example) == (8, "'1.jpg' with 3 objects")
    assert "set TEST.DETECTIONS_PER_IMAGE 3 or more" in only.advice
    assert findings(content(), training=True, DETECTIONS=2) == {}


def test_reports(caplog: pytest.LogCaptureFixture) -> None:
    odd = Finding("spots", "oddity", 1200, "'a.jpg'", "wash them")
    errors = [Finding(kind, "error", n, "'b.jpg'", "mend") for n, kind in enumerate("xy", 1)]
    report([odd], "mine")
    assert caplog.messages == ["data set 'mine': 1,200 × spots, first 'a.jpg'; wash them"]
    with pytest.raises(
        UserError, match=r"^data set 'mine': 1 × x, first 'b.jpg'; mend .also: 2 × y"
    ):
        report([odd, *errors], "mine")


def test_the_table_has_every_kind() -> None:
    rows = kinds_table().splitlines()[2:]
    assert len(rows) == len(KINDS)
    assert not any("{" in row.replace("{'size'", "") for row in rows)
