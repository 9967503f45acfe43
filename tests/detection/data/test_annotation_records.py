"""Annotation files as records, against Detectron2's own reader where that can read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode

from backbones import UserError
from detection.data.annotations.records import file_of, load_coco
from detection.data.checks import check_data_set, check_test_sets, load_records
from detection.data.loader import build_test_loader, build_train_loader, load_training_records
from detection.evaluation import build_evaluator
from tests.detection.annotation_files import content

Register = Callable[..., str]


def change(path: Path, spoil: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    spoil(data)
    path.write_text(json.dumps(data))


def test_records_are_detectron2s(own_json: Path) -> None:
    """But for what it leaves out, which is 0: iscrowd."""
    theirs = load_coco_json(str(own_json), "images", "theirs")
    ours = load_coco(own_json, "images", "ours")
    assert ours == theirs
    for key in ("thing_classes", "thing_dataset_id_to_contiguous_id"):
        assert MetadataCatalog.get("ours").get(key) == MetadataCatalog.get("theirs").get(key)
    assert load_coco(own_json, "images") == load_coco_json(str(own_json), "images")
    for name in ("ours", "theirs"):
        MetadataCatalog.remove(name)


def test_keypoints_are_detectron2s(tmp_path: Path) -> None:
    data = content(images=1)
    data["annotations"][0] |= {"keypoints": [4, 5, 2, 7.5, 8, 1], "num_keypoints": 2, "score": 3}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    ours = load_coco(path, "", extra_annotation_keys=["score"])
    assert ours == load_coco_json(str(path), "", extra_annotation_keys=["score"])
    assert ours[0]["annotations"][0]["keypoints"] == [4.5, 5.5, 2, 8.0, 8.5, 1]


def test_a_byte_order_mark_is_no_content(
    register: Register, tiny_cfg: CfgNode, own_json: Path
) -> None:
    """By the loaders and by the evaluator."""
    text = own_json.read_text()
    own_json.write_text(text, encoding="utf-8-sig")
    name = register(own_json)
    tiny_cfg.DATASETS.TRAIN = tiny_cfg.DATASETS.TEST = (name,)
    next(iter(build_train_loader(tiny_cfg)))
    next(iter(build_test_loader(tiny_cfg, name)))
    evaluator = build_evaluator(tiny_cfg, name)
    evaluator.reset()
    assert set(evaluator.evaluate()) == {"bbox", "segm"}


def test_an_object_without_a_usable_mask_keeps_its_box(register: Register, own_json: Path) -> None:
    """Detectron2 leaves out the second and the third."""
    masks = [None, [[4, 5, 20, 30]], [[1, 1, 2, 2, 3, 3]], [[1, 1, 9, 1, 9, 9], [4, 5]]]

    def spoil(data: dict[str, Any]) -> None:
        for item, mask in zip(data["annotations"], masks, strict=False):
            item["segmentation"] = mask

    change(own_json, spoil)
    records = load_records(register(own_json))
    found = [item.get("segmentation") for record in records for item in record["annotations"]]
    assert len(found) == 15
    assert found[:4] == [None, None, None, [[1, 1, 9, 1, 9, 9]]]


@pytest.mark.parametrize("make", ["{:06d}".format, float, lambda n: -n, lambda n: 2**60 + n])
def test_ids_of_any_kind(
    register: Register, tiny_cfg: CfgNode, own_json: Path, make: Callable[[int], Any]
) -> None:
    """The same classes and objects, whatever their ids; only negative ids turn their order."""
    plain = load_records(register(own_json))

    def spoil(data: dict[str, Any]) -> None:
        for part in ("images", "categories", "annotations"):
            for item in data[part]:
                item["id"] = make(item["id"])
        for item in data["annotations"]:
            item |= {key: make(item[key]) for key in ("image_id", "category_id")}

    change(own_json, spoil)
    name = register(own_json)
    tiny_cfg.DATASETS.TEST = (name,)
    check_test_sets_without_training(tiny_cfg)
    records = load_records(name)
    assert {record["image_id"] for record in records} == {make(r["image_id"]) for r in plain}
    classes = MetadataCatalog.get(name).thing_classes
    assert classes == (["bar", "disc", "box"] if make(1) == -1 else ["box", "disc", "bar"])

    def named(records: list[dict[str, Any]], classes: list[str]) -> set[Any]:
        return {
            (r["file_name"], classes[a["category_id"]], *a["bbox"])
            for r in records
            for a in r["annotations"]
        }

    assert named(records, classes) == named(plain, ["box", "disc", "bar"])


def check_test_sets_without_training(cfg: CfgNode) -> None:
    cfg.DATASETS.TRAIN = ()
    check_test_sets(cfg)


def test_classes_in_another_order_between_sets(
    register: Register, tiny_cfg: CfgNode, own_json: Path
) -> None:
    """Before a training, and before an evaluation where the training set is there."""

    def turn(data: dict[str, Any]) -> None:
        names = [item["name"] for item in data["categories"]]
        for item, name in zip(data["categories"], names[1:] + names[:1], strict=True):
            item["name"] = name

    train = register(own_json)
    other = own_json.with_name("other.json")
    other.write_text(own_json.read_text())
    change(other, turn)
    tiny_cfg.DATASETS.TRAIN, tiny_cfg.DATASETS.TEST = (train,), (register(other, other.parent),)
    message = rf"classes other than those of '{train}', first 'disc' where it has 'box', the same"
    with pytest.raises(UserError, match=message):
        check_test_sets(tiny_cfg)  # the training set's file is read for it
    with pytest.raises(UserError, match=message):
        load_training_records(tiny_cfg)
    own_json.unlink()
    tiny_cfg.DATASETS.TRAIN = (register(own_json),)
    check_test_sets(tiny_cfg)


def test_oddities_are_said_once(
    register: Register, tiny_cfg: CfgNode, own_json: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(own_json, lambda data: data["annotations"][0].update(bbox=[4, 6, 18, 0]))
    name = register(own_json)
    for _ in range(2):
        check_data_set(tiny_cfg, name, training=True)
    (message,) = [text for text in caplog.messages if "boxes" in text]
    assert message.startswith(f"data set '{name}': 1 × boxes of no width or height, first annotat")


@pytest.mark.parametrize("mode", [BoxMode.XYXY_ABS, BoxMode.XYWH_ABS])
def test_a_data_set_without_a_file(tiny_cfg: CfgNode, own_json: Path, mode: BoxMode) -> None:
    """Its records are checked as an annotation file would be, masks in arrays included."""
    records = load_coco(own_json, own_json.parent, None)
    for record in records:
        for item in record["annotations"]:
            x, y, w, h = item["bbox"]
            mask = np.zeros((record["height"], record["width"]), bool)
            mask[y : y + h, x : x + w] = True
            box = [x, y, x + w, y + h] if mode == BoxMode.XYXY_ABS else [x, y, w, h]
            number = {3: 0, 5: 1, 11: 2}[item["category_id"]]
            item |= {"bbox": box, "bbox_mode": mode, "category_id": number, "segmentation": mask}
    DatasetCatalog.register("in_python", lambda: records)
    MetadataCatalog.get("in_python").thing_classes = ["box", "disc", "bar"]
    columns = file_of("in_python", records).columns
    assert columns.masks.usable.all()
    assert (columns.masks.area == columns.box_areas).all()
    tiny_cfg.DATASETS.TRAIN = tiny_cfg.DATASETS.TEST = ("in_python",)
    check_data_set(tiny_cfg, "in_python", training=True)
    records[0]["annotations"][0]["bbox"] = [3, 4]
    with pytest.raises(UserError, match=r"not four finite numbers, first annotation 0 of"):
        check_data_set(tiny_cfg, "in_python", training=True)
