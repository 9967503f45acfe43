"""The folders that people have, each written down file by file, and those that are refused."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from backbones import UserError
from detection.data.headers import read_header
from detection.data.layouts import source_of_file, source_of_folder, splits_of

NAMES = ("cat", "dog")


def lay_out(root: Path, files: Mapping[str, object]) -> Path:
    """Writes files: a list of image names makes an annotation file, anything else is its text."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(coco(content) if isinstance(content, list) else str(content))
    return root


def coco(images: list[str], crowds: int = 0) -> str:
    listed = [
        {"id": number, "file_name": name, "height": 8, "width": 8}
        for number, name in enumerate(images)
    ]
    objects = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 4, 4], "iscrowd": n < crowds}
        for n in range(len(images))
    ]
    classes = [{"id": n, "name": name} for n, name in enumerate(NAMES, start=1)]
    return json.dumps({"images": listed, "annotations": objects, "categories": classes})


LAYOUTS: dict[str, tuple[dict[str, object], str, str]] = {
    "COCO's own": (
        {
            "annotations/instances_train2017.json": ["a.jpg"],
            "annotations/instances_val2017.json": ["b.jpg"],
            "annotations/captions_train2017.json": ["a.jpg"],
            "annotations/person_keypoints_train2017.json": ["a.jpg"],
            "annotations/image_info_test-dev2017.json": ["c.jpg"],
            "train2017/a.jpg": "",
            "val2017/b.jpg": "",
        },
        "annotations/instances_train2017.json:train2017",
        "annotations/instances_val2017.json:val2017",
    ),
    "label tools'": (
        {
            "train/_annotations.coco.json": ["a.jpg"],
            "train/a.jpg": "",
            "valid/_annotations.coco.json": ["a.jpg"],
            "valid/a.jpg": "",
            "test/_annotations.coco.json": ["a.jpg"],
            "test/a.jpg": "",
            "README.dataset.txt": "",
        },
        "train/_annotations.coco.json:train",
        "valid/_annotations.coco.json:valid",
    ),
    "a test set in the place of the validation set": (
        {
            "train/_annotations.coco.json": ["a.jpg"],
            "train/a.jpg": "",
            "test/_annotations.coco.json": ["a.jpg"],
            "test/a.jpg": "",
        },
        "train/_annotations.coco.json:train",
        "test/_annotations.coco.json:test",
    ),
    "a file a split, with a folder each": (
        {"train.json": ["a.jpg"], "val.json": ["a.jpg"], "train/a.jpg": "", "val/a.jpg": ""},
        "train.json:train",
        "val.json:val",
    ),
    "a file a split, with one folder of images": (
        {"train.json": ["a.jpg"], "val.json": ["b.jpg"], "images/a.jpg": "", "images/b.jpg": ""},
        "train.json:images",
        "val.json:images",
    ),
    "a file a split, among all images": (
        {"train.json": ["a.jpg"], "val.json": ["b.jpg"], "a.jpg": "", "b.jpg": ""},
        "train.json:.",
        "val.json:.",
    ),
    "folders below images": (
        {
            "annotations/train.json": ["a.jpg"],
            "annotations/validation.json": ["a.jpg"],
            "images/train/a.jpg": "",
            "images/validation/a.jpg": "",
        },
        "annotations/train.json:images/train",
        "annotations/validation.json:images/validation",
    ),
    "paths below the folder in the file": (
        {
            "train_annotations.json": ["pictures/a.jpg"],
            "val_annotations.json": ["pictures/a.jpg"],
            "pictures/a.jpg": "",
        },
        "train_annotations.json:.",
        "val_annotations.json:.",
    ),
    "a tool's folder a split": (
        {
            "train/annotations/instances_default.json": ["a.jpg"],
            "train/images/a.jpg": "",
            "val/annotations/instances_default.json": ["a.jpg"],
            "val/images/a.jpg": "",
        },
        "train/annotations/instances_default.json:train/images",
        "val/annotations/instances_default.json:val/images",
    ),
    "what systems leave": (
        {
            "train.json": ["a.jpg"],
            "val.json": ["a.jpg"],
            "images/a.jpg": "",
            "._train.json": "\x00",
            "__MACOSX/train.json": ["a.jpg"],
            ".ipynb_checkpoints/train-checkpoint.json": ["a.jpg"],
            "train_log.json": '{"loss": 1}',
        },
        "train.json:images",
        "val.json:images",
    ),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_whole_folder(kind: str, tmp_path: Path) -> None:
    files, train, held_out = LAYOUTS[kind]
    root = lay_out(tmp_path / ".hidden" / "photos", files)
    found = splits_of(root)
    for source, expected in zip(found[:2], (train, held_out), strict=True):
        assert source is not None
        json_file, folder = expected.split(":")
        assert source.resolved() == ((root / json_file).resolve(), (root / folder).resolve())
    assert ("test takes its place" in found[2]) == ("in the place" in kind)
    assert ("is left out" in found[2]) == (kind == "label tools'")


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "several": (
        {
            "annotations/instances_train.json": ["a.jpg"],
            "annotations/instances_train_13.json": ["a.jpg"],
            "annotations/instances_val.json": ["b.jpg"],
            "train/a.jpg": "",
            "val/b.jpg": "",
        },
        r"train may be '\S+instances_train.json' or '\S+instances_train_13.json'; .*"
        r"DATASETS.TRAIN \S+/instances_train.json:\S+/train "
        r"DATASETS.TEST \S+/instances_val.json:\S+/val$",
    ),
    "one": (
        {"all.json": ["a.jpg"], "images/a.jpg": ""},
        r"one annotation file, '\S+/all.json', and no validation set; split it .* "
        r'DATASETS.TRAIN \S+/all.json:\S+/images DATASETS.TEST "\(\)"$',
    ),
    "only train": (
        {"train/_annotations.coco.json": ["a.jpg"], "train/a.jpg": ""},
        "no validation set; split it",
    ),
    "nothing": ({"a.jpg": ""}, "it has no COCO annotation file; known layouts: .*ANNOTATIONS.json"),
    "other JSON": ({"stats.json": "{}"}, "it has no COCO annotation file; known layouts"),
    "YOLO": (
        {
            "images/train/a.jpg": "",
            "labels/classes.txt": "0 0.5 0.5 0.2 0.2",
            "labels/train/a.txt": "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n",
        },
        r"no COCO annotation file, but YOLO labels \('\S+/labels/train/a.txt'\): export them as "
        "COCO JSON, as label tools can, or convert them; known layouts",
    ),
    "YOLO with masks": (
        {"train/labels/a.txt": "0 0.5 0.5 0.2 0.2 0.1 0.1", "data.yaml": "nc: 1"},
        r"but YOLO labels \('\S+/train/labels/a.txt'\)",
    ),
    "notes": ({"notes.txt": "1 2 3 4 5", "x.xml": "<svg/>", "x.csv": "a,b"}, "file; known"),
    "Pascal VOC": (
        {"Annotations/a.xml": "<?xml version='1.0'?>\n<annotation/>", "JPEGImages/a.jpg": ""},
        r"but Pascal VOC XML \('\S+/Annotations/a.xml'\): export",
    ),
    "LabelMe": (
        {f"train/{n}.json": '{"shapes": [], "imagePath": "a.jpg"}' for n in range(60)},
        r"but LabelMe JSON \('\S+/train/0.json'\): export",
    ),
    "VIA": (
        {"via.json": '{"a.jpg12": {"filename": "a.jpg", "regions": []}}'},
        r"but VGG Image Annotator JSON \('\S+/via.json'\): export",
    ),
    "a table": (
        {"train/_annotations.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\n"},
        r"but a table of boxes \('\S+/train/_annotations.csv'\): export",
    ),
    "one below": (
        {"inner/train.json": ["a.jpg"], "inner/val.json": ["a.jpg"], "inner/a.jpg": ""},
        r"did you mean DATA.ROOT \S+/inner\?",
    ),
    "no split by name": (
        {"first.json": ["a.jpg"], "second.json": ["a.jpg"], "a.jpg": ""},
        r"it has '\S+/first.json' and '\S+/second.json'; known layouts",
    ),
    "images elsewhere": (
        {"train.json": ["a.jpg"], "val.json": ["a.jpg"], "pictures/a.jpg": ""},
        r"no images of '\S+/train.json', such as 'a.jpg', in any .*train.json:IMAGE_FOLDER",
    ),
    "images twice": (
        {"train.json": ["a.jpg"], "val.json": ["a.jpg"], "images/a.jpg": "", "data/a.jpg": ""},
        r"are in several folders, '\S+/images' and '\S+/data'; .*train.json:IMAGE_FOLDER",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_folder_that_is_not_clear(kind: str, tmp_path: Path) -> None:
    files, expected = REFUSED[kind]
    with pytest.raises(UserError, match=expected) as caught:
        splits_of(lay_out(tmp_path / "photos", files))
    assert "\n" not in str(caught.value)


def test_ways_out_can_be_pasted(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "my photos", {"all.json": ["a.jpg"], "images/a.jpg": ""})
    with pytest.raises(UserError) as caught:
        splits_of(root)
    words = shlex.split(str(caught.value).rpartition("instead of DATA.ROOT: ")[2])
    assert words == ["DATASETS.TRAIN", f"{root}/all.json:{root}/images", "DATASETS.TEST", "()"]


def test_a_file_is_no_root(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"train.json": ["a.jpg"]})
    with pytest.raises(UserError, match=r"is a file; .* DATASETS.TRAIN \S+/train.json DATASETS"):
        splits_of(root / "train.json")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="DATA.ROOT is '.*absent', but there is no such folder"):
        splits_of(tmp_path / "absent")


def test_an_evaluation_needs_no_training_set(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"val.json": ["a.jpg"], "a.jpg": ""})
    train, held_out, _ = splits_of(root, training=False)
    assert train is None
    assert str(held_out) == f"{root}/val.json:{root}"
    with pytest.raises(UserError, match="no training and validation set"):
        splits_of(root)


FOLDERS: dict[str, tuple[dict[str, object], str | None]] = {
    "a label tool's": ({"set/_annotations.coco.json": ["a.jpg"]}, "set/_annotations.coco.json"),
    "one JSON in it": ({"set/found.json": ["a.jpg"], "set/other.json": "{}"}, "set/found.json"),
    "one beside it": ({"set.json": ["a.jpg"]}, "set.json"),
    "COCO's beside it": (
        {"annotations/instances_set.json": ["a.jpg"]},
        "annotations/instances_set.json",
    ),
    "two in it": ({"set/x.json": ["a.jpg"], "set/y.json": ["a.jpg"]}, None),
    "two beside it": ({"set.json": ["a.jpg"], "annotations/set.json": ["a.jpg"]}, None),
    "none": ({}, None),
    "YOLO's": ({"set/a.txt": "0 0.5 0.5 0.2 0.2"}, None),
    "CVAT's": (
        {"set/annotations/instances_default.json": ["a.jpg"]},
        "set/annotations/instances_default.json",
    ),
    "two below it": (
        {"set/annotations/x.json": ["a.jpg"], "set/annotations/y.json": ["a.jpg"]},
        None,
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_of_one_set(kind: str, tmp_path: Path) -> None:
    files, expected = FOLDERS[kind]
    folder = lay_out(tmp_path, {**files, "set/a.jpg": ""}) / "set"
    if expected is None:
        with pytest.raises(UserError, match=r"DATASETS.TRAIN: .*ANNOTATIONS.json:IMAGE_FOLDER"):
            source_of_folder(folder, "DATASETS.TRAIN")
        return
    source = source_of_folder(folder, "DATASETS.TRAIN")
    assert (source.json_file, source.image_root) == (str(tmp_path / expected), str(folder))


def test_a_folder_of_several_sets(tmp_path: Path) -> None:
    files, _, _ = LAYOUTS["label tools'"]
    with pytest.raises(UserError, match=r"splits train, val, test; .* DATA.ROOT \S+$"):
        source_of_folder(lay_out(tmp_path, files), "DATASETS.TRAIN")


def test_the_folder_with_most_of_the_images(tmp_path: Path) -> None:
    """A picture that is in two places, and one that is missing, leave no doubt."""
    files = {"x.json": ["a.jpg", "b.jpg", "c.jpg"], "images/a.jpg": "", "images/b.jpg": ""}
    root = lay_out(tmp_path, {**files, "a.jpg": ""})
    assert source_of_file(root / "x.json", "DATASETS.TRAIN").image_root == str(root / "images")


def test_a_header_is_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    content = json.loads(coco([f"{n}.jpg" for n in range(50)], crowds=3))
    content["categories"].reverse()
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    header = read_header(path)
    assert (header.classes, header.images, header.with_objects) == (NAMES, 50, 47)
    assert len(header.files) == 20
    path.write_text(coco(["other.jpg"]))
    assert read_header(path).files == ("other.jpg",)


def test_a_header_with_ids_and_crowds_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    content = {
        "images": [{"id": "a", "coco_url": "http://x.org/val2017/a.jpg"}],
        "annotations": [{"image_id": "a", "category_id": 2, "iscrowd": "0"}],
        "categories": [{"id": n, "name": f"class {n}"} for n in ("x", "10", 2, "9")],
    }
    path.write_text(json.dumps(content))
    header = read_header(path)
    assert header.classes == ("class 2", "class 9", "class 10", "class x")
    assert (header.with_objects, header.files) == (1, ("val2017/a.jpg",))


def test_ids_of_a_header_may_be_numbers_and_text(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    content = json.loads(coco(["a.jpg"]))
    content["categories"] = [{"id": "x", "name": "last"}, {"id": 7, "name": "first"}]
    path.write_text(json.dumps(content))
    assert read_header(path).classes == ("first", "last")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "it is empty"),
        ("{", "JSONDecodeError: Expecting"),
        ("[]", "it holds a list"),
        ("{}", "it has no list of images"),
        ('{"images": 3}', "it has no list of images"),
        ('{"images": [], "categories": []}', "it has no list of annotations"),
        ('{"images": [{"id": 1}], "categories": []}', r"images\[0\] has no 'file_name'"),
        ("[" * 100_000, "RecursionError"),
        ("{}".encode("utf-16"), "UnicodeDecodeError: invalid start byte at byte 0; expected UTF-8"),
    ],
)
def test_a_file_that_is_no_coco(content: str | bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    expected = rf"{re.escape(str(path))}' is not valid COCO JSON \({reason}.*\); mend it"
    with pytest.raises(UserError, match=expected):
        read_header(path)
    with pytest.raises(UserError, match="cannot read the annotation file"):
        read_header(tmp_path / "absent.json")
