"""Both scoring backends against pycocotools used directly."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from backbones import UserError
from detection.scoring import BACKENDS, METRICS, score

SIDE = 160


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**encoded, "counts": encoded["counts"].decode()}


def shape(x: float, y: float, w: float, h: float, ellipse: bool) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    if ellipse:
        return ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
    return (columns >= x) & (columns < x + w) & (rows >= y) & (rows < y + h)


def instance(box: list[float], ellipse: bool = False, **fields: Any) -> dict[str, Any]:
    mask = shape(*box, ellipse)
    return {"bbox": box, "segmentation": rle(mask), "area": float(mask.sum()), **fields}


def random_set(seed: int, images: int = 12, detections: int = 20) -> tuple[dict, list[dict]]:
    """Truth of three classes at all scales, and noisy detections of it with tied scores."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {
        "images": [{"id": 7 * i, "height": SIDE, "width": SIDE} for i in range(images)],
        "categories": [{"id": c, "name": f"class {c}"} for c in (1, 4, 9)],
        "annotations": [],
    }
    results = []
    for image in truth["images"]:
        boxes: list[tuple[list[float], int]] = []
        for _ in range(int(rng.integers(0, 9))):
            w, h = rng.choice([10, 40, 110]) * rng.uniform(0.8, 1.2, 2)
            category = int(rng.choice([1, 4, 9]))
            boxes.append(([*rng.uniform(0, SIDE - 40, 2), w, h], category))
            fields = {
                "id": len(truth["annotations"]) + 1,
                "image_id": image["id"],
                "category_id": category,
                "iscrowd": int(rng.random() < 0.1),
            }
            truth["annotations"].append(instance(boxes[-1][0], True, **fields))
        for _ in range(int(rng.integers(0, detections))):
            box, category = [*rng.uniform(0, 120, 2), 30.0, 30.0], 4
            if boxes and rng.random() < 0.7:
                box, category = boxes[rng.integers(len(boxes))]
            box = (np.asarray(box) + rng.normal(0, 2, 4)).clip(1).tolist()
            found = instance(box, True)
            del found["area"]
            results.append(
                {
                    **found,
                    "image_id": image["id"],
                    "category_id": category,
                    "score": round(float(rng.random()), 1),
                }
            )
    return truth, results


def reference(truth: dict, results: list[dict], task: str) -> dict[str, float]:
    """The six figures that pycocotools prints, and AP by class, without any of our code."""
    results = copy.deepcopy(results)
    if task == "segm":
        for result in results:
            del result["bbox"]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        found = coco.loadRes(results)
        evaluation = COCOeval(coco, found, task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = {
        name: math.nan if value < 0 else 100 * value
        for name, value in zip(METRICS, evaluation.stats[:6], strict=True)
    }
    for index, category in enumerate(truth["categories"]):
        precision = evaluation.eval["precision"][:, :, index, 0, -1]
        precision = precision[precision > -1]
        figures[f"AP-{category['name']}"] = 100 * precision.mean() if precision.size else math.nan
    return figures


def check(truth: dict, results: list[dict], backend: str, task: str) -> dict[str, float]:
    before = copy.deepcopy((truth, results))
    found = score(truth, results, task, backend)
    assert (truth, results) == before
    expected = reference(truth, results, task)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name
    return found


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(4))
def test_random_sets(seed: int, backend: str, task: str) -> None:
    found = check(*random_set(seed), backend, task)
    assert 5 < found["AP"] < 95


def truth_of(*instances: dict[str, Any]) -> dict[str, Any]:
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, **item}
        for i, item in enumerate(instances, start=1)
    ]
    return {
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in (1, 2)],
        "categories": [{"id": c, "name": f"class {c}"} for c in (1, 2)],
        "annotations": annotations,
    }


def found_at(box: list[float], score: float, image_id: int = 1, category: int = 1) -> dict:
    item = instance(box)
    del item["area"]
    return {**item, "image_id": image_id, "category_id": category, "score": score}


def adversarial() -> dict[str, tuple[dict, list[dict]]]:
    small, large = [10, 10, 32, 32], [20, 20, 96, 96]
    crowd = instance([60, 0, 90, 150], iscrowd=1)
    many = [found_at([i, j, 30, 30], 0.5) for i in range(0, 120, 8) for j in range(0, 120, 10)]
    return {
        "areas at 32² and 96²": (
            truth_of(instance(small), instance(large)),
            [found_at(small, 0.9), found_at(large, 0.8)],
        ),
        "ties": (
            truth_of(instance(small)),
            [found_at(large, 0.5), found_at(small, 0.5), found_at([12, 10, 32, 32], 0.5)],
        ),
        "detections in a crowd": (
            truth_of(instance(small), crowd),
            [found_at([70, y, 20, 20], 0.9) for y in range(0, 100, 25)] + [found_at(small, 0.4)],
        ),
        "only a crowd": (truth_of(crowd), [found_at([70, 10, 20, 20], 0.9)]),
        "no truth at all": (truth_of(), [found_at(small, 0.9)]),
        "a class and an image without truth": (
            truth_of(instance(small)),
            [found_at(small, 0.9, category=2), found_at(small, 0.3, image_id=2)],
        ),
        "more than 100 detections": (truth_of(instance(small), instance(large)), many),
        "the same object twice": (
            truth_of(instance(small), instance(small)),
            [found_at(small, 0.9), found_at(small, 0.9), found_at(small, 0.9)],
        ),
    }


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", list(adversarial()))
def test_adversarial_sets(name: str, backend: str, task: str) -> None:
    check(*adversarial()[name], backend, task)


@pytest.mark.parametrize("backend", BACKENDS)
def test_area_at_the_border_counts_on_both_sides(backend: str) -> None:
    found = check(*adversarial()["areas at 32² and 96²"], backend, "bbox")
    assert [found[name] for name in ("APs", "APm", "APl")] == pytest.approx([100, 100, 100])


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_detected(backend: str) -> None:
    """Pycocotools cannot load no detections; AP is 0 where there is something to find."""
    truth = truth_of(instance([10, 10, 20, 20]))
    found = score(truth, [], "segm", backend)
    assert found["AP"] == found["AP50"] == found["APs"] == found["AP-class 1"] == 0
    assert math.isnan(found["APm"])
    assert math.isnan(found["APl"])
    assert math.isnan(found["AP-class 2"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_annotation_with_id_zero_is_found(backend: str) -> None:
    """With id 0, pycocotools counts a perfect detection as a miss."""
    truth = truth_of(instance([10, 10, 20, 20]))
    truth["annotations"][0]["id"] = 0
    assert score(truth, [found_at([10, 10, 20, 20], 0.9)], "bbox", backend)["AP"] == pytest.approx(
        100
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_optional_fields_may_be_missing(backend: str) -> None:
    truth = truth_of(instance([10, 10, 20, 20]))
    for field in ("iscrowd", "area"):
        del truth["annotations"][0][field]
    assert score(truth, [found_at([10, 10, 20, 20], 0.9)], "segm", backend)["AP"] == pytest.approx(
        100
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_area_that_is_missing_is_the_boxs(backend: str) -> None:
    """40 × 40 pixels are a medium object; 40 would be a small one."""
    truth = truth_of(instance([10, 10, 40, 40]))
    del truth["annotations"][0]["area"]
    found = score(truth, [found_at([10, 10, 40, 40], 0.9)], "bbox", backend)
    assert found["APm"] == pytest.approx(100)
    assert math.isnan(found["APs"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("most", [10, 15, 100])
def test_the_best_detections_of_an_image_count(backend: str, most: int) -> None:
    """Of 20 objects in one image, each found, ``most`` are scored: 10 are 51 of 101 recalls."""
    boxes = [[30 * column, 30 * row, 20, 20] for row in range(4) for column in range(5)]
    truth = truth_of(*map(instance, boxes))
    results = [found_at(box, 0.9 - 0.01 * index) for index, box in enumerate(boxes)]
    found = score(truth, results, "bbox", backend, max_dets=most)
    recalls = 1 + 100 * min(most, 20) // 20
    assert found["AP"] == pytest.approx(100 * recalls / 101)


def people(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two classes with 17 keypoints, and noisy detections of them."""
    rng = np.random.default_rng(seed)
    truth = truth_of(*(instance([*rng.uniform(0, 60, 2), 70.0, 90.0]) for _ in range(8)))
    results = []
    for annotation in truth["annotations"]:
        annotation["category_id"] = 1 + annotation["id"] % 2
        annotation["image_id"] = 1 + annotation["id"] // 3 % 2
        x, y, w, h = annotation["bbox"]
        points = np.column_stack([x + w * rng.random(17), y + h * rng.random(17), [2] * 17])
        annotation |= {"keypoints": points.ravel().tolist(), "num_keypoints": 17}
        points[:, :2] += rng.normal(0, 4, (17, 2))
        fields = {key: annotation[key] for key in ("image_id", "category_id")}
        keypoints = points.ravel().tolist()
        results.append({**fields, "keypoints": keypoints, "score": float(rng.random())})
    return truth, results


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sigmas", [(), (0.03,) * 17], ids=["COCO's", "others"])
def test_keypoints(backend: str, sigmas: tuple[float, ...]) -> None:
    """There are no small objects, and no table by class."""
    truth, results = people(1)
    found = score(truth, results, "keypoints", backend, kpt_oks_sigmas=sigmas)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "keypoints")
        if sigmas:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APm", "APl")
    assert list(found) == list(names)
    expected = [math.nan if value < 0 else 100 * value for value in evaluation.stats[:5]]
    assert 1 < expected[0] < 99
    for name, value in zip(names, expected, strict=True):
        assert found[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def test_a_single_class_has_no_table_by_class() -> None:
    truth = truth_of(instance([10, 10, 20, 20]))
    truth["categories"] = truth["categories"][:1]
    assert list(score(truth, [], "bbox")) == list(METRICS)


def test_bad_input() -> None:
    truth = truth_of(instance([10, 10, 20, 20]))
    with pytest.raises(UserError, match="COCO_BACKEND is 'fast'; expected one of faster"):
        score(truth, [], "bbox", "fast")
    with pytest.raises(UserError, match="image 9, which the annotation file does not list"):
        score(truth, [found_at([1, 1, 2, 2], 0.5, image_id=9)], "bbox")


def test_through_json_files(tmp_path: Path) -> None:
    truth, results = random_set(9)
    truth, results = json.loads(json.dumps(truth)), json.loads(json.dumps(results))
    check(truth, results, "faster", "segm")


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "make",
    ["{:09d}".format, "image {:09d}".format, float, lambda n: n / 8, lambda n: 2**70 + n],
    ids=["digits", "text", "floats", "fractions", "beyond 2^53"],
)
def test_ids_of_any_kind(make: Callable[[int], Any], backend: str, task: str) -> None:
    """They say which is which, and nothing else: the figures are those of small numbers."""
    truth, results = random_set(5)
    plain = score(truth, results, task, backend)
    for part in ("images", "categories", "annotations"):
        for item in truth[part]:
            item["id"] = make(item["id"])
    for item in (*truth["annotations"], *results):
        item |= {key: make(item[key]) for key in ("image_id", "category_id")}
    assert score(truth, results, task, backend) == plain


@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_below_zero_and_ids_that_stand_twice(backend: str) -> None:
    """Images in another order may tie otherwise, so there are no equal scores here."""
    truth, results = random_set(5)
    for number, result in enumerate(results):
        result["score"] = number / len(results)
    plain = score(truth, results, "bbox", backend)
    for item in truth["images"]:
        item["id"] = -item["id"]
    for item in truth["annotations"]:
        item |= {"image_id": -item["image_id"], "id": item["id"] // 2}
    for item in results:
        item["image_id"] = -item["image_id"]
    assert score(truth, results, "bbox", backend) == pytest.approx(plain, nan_ok=True)
    truth["images"][0]["id"] = truth["images"][1]["id"]
    with pytest.raises(UserError, match="has 2 images with the id -7; give every one an id"):
        score(truth, results, "bbox", backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_listed_is_left_out(backend: str) -> None:
    truth, results = random_set(5)
    plain = score(truth, results, "segm", backend)
    strangers = [{**truth["annotations"][0], "image_id": 999}, dict(truth["annotations"][1])]
    strangers[1]["category_id"] = 77
    truth["annotations"] += strangers
    results.append({**results[0], "category_id": 77})
    assert score(truth, results, "segm", backend) == plain


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("area", [None, 0, -3, math.nan, "700", KeyError])
def test_areas_that_are_none_are_the_masks(area: Any, backend: str, task: str) -> None:
    """random_set has areas counted in the masks, which are ellipses in boxes 1.27 × as large."""
    truth, results = random_set(6)
    plain = score(truth, results, task, backend)
    for item in truth["annotations"]:
        item["area"] = area
        if area is KeyError:
            del item["area"]
    assert score(truth, results, task, backend) == plain


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_of_every_kind_score_alike(backend: str) -> None:
    """Polygons, with some that are no polygons among them, and both run-length encodings."""
    box = [20, 30, 50, 40]
    polygon = [20, 30, 70, 30, 70, 70, 20, 70]
    flat = shape(*box, False).ravel(order="F")
    counts = np.diff([0, *(np.flatnonzero(np.diff([*flat.astype(int), 2])) + 1)]).tolist()
    masks = [
        rle(shape(*box, False)),
        {"size": [SIDE, SIDE], "counts": counts},
        [polygon],
        [[1, 2, 3, 4], polygon, [5, 5, 6, 6, 7, 7], [9, 9, 9]],
        polygon,
    ]
    for mask in masks:
        truth = truth_of({**instance(box), "segmentation": mask})
        del truth["annotations"][0]["area"]
        found = score(truth, [found_at(box, 0.9)], "segm", backend)
        assert found["AP"] == found["APm"] == pytest.approx(100)
        assert math.isnan(found["APs"]) and math.isnan(found["APl"])


@pytest.mark.parametrize("area", [2000, 0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_such_as_640_0(backend: str, area: float) -> None:
    box = [20, 30, 50, 40]
    polygon = [20, 30, 70, 30, 70, 70, 20, 70]
    truth = truth_of({**instance(box), "segmentation": [polygon], "area": area})
    truth["images"] = [{**i, "height": float(SIDE), "width": float(SIDE)} for i in truth["images"]]
    found = score(truth, [found_at(box, 0.9)], "segm", backend)
    assert found["AP"] == found["APm"] == pytest.approx(100)


@pytest.mark.parametrize("mask", [None, [], [[1, 2, 3, 4]], {"size": [9, 9], "counts": [3]}])
@pytest.mark.parametrize("backend", BACKENDS)
def test_objects_with_a_box_only(backend: str, mask: Any) -> None:
    """By boxes they are objects; by masks, what is found in them is neither right nor wrong."""
    boxes = [[10, 10, 30, 30], [80, 80, 40, 40]]
    truth = truth_of(*map(instance, boxes))
    truth["annotations"][1] |= {"segmentation": mask, "area": None}
    results = [found_at(boxes[1], 0.9), found_at(boxes[0], 0.8)]
    assert score(truth, results, "bbox", backend)["AP"] == pytest.approx(100)
    assert score(truth, results[1:], "bbox", backend)["AP"] == pytest.approx(100 * 51 / 101)
    assert score(truth, results, "segm", backend)["AP"] == pytest.approx(100)
    assert score(truth, results[1:], "segm", backend)["AP"] == pytest.approx(100)
    truth["annotations"].pop(0)
    assert math.isnan(score(truth, results[:1], "segm", backend)["AP"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_crowds_as_people_write_them(backend: str) -> None:
    crowd = [60, 0, 90, 150]
    truth = truth_of(instance([10, 10, 32, 32]), instance(crowd, iscrowd=1))
    results = [found_at([70, 20, 20, 20], 0.9), found_at([10, 10, 32, 32], 0.4)]
    for yes, no in ((1, 0), (True, False), ("1", "0"), (1.0, None)):
        truth["annotations"][0]["iscrowd"], truth["annotations"][1]["iscrowd"] = no, yes
        assert score(truth, results, "bbox", backend)["AP"] == pytest.approx(100)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_classes_of_one_name_have_two_rows(backend: str) -> None:
    truth = truth_of(instance([10, 10, 20, 20]))
    for item in truth["categories"]:
        item["name"] = "dog"
    found = score(truth, [found_at([10, 10, 20, 20], 0.9)], "bbox", backend)
    assert found["AP-dog (1)"] == pytest.approx(100)
    assert math.isnan(found["AP-dog (2)"])


def test_a_mask_of_another_size_than_its_image() -> None:
    truth = truth_of(instance([10, 10, 20, 20]))
    truth["images"][0]["height"] = SIDE + 1
    with pytest.raises(UserError, match=r"height and width \[160, 160\], but its image has \[161,"):
        score(truth, [], "segm")
