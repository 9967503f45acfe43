"""What ``tools/check_data.py`` says: tables, findings, and keys that fit the data."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import transforms as T
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, pairwise_iou

from backbones import UserError
from detection.config import add_spnas_config
from detection.data.annotations.anchors import (
    InputSize,
    configured_anchors,
    input_boxes,
    proposed_anchors,
    proposed_size,
)
from detection.data.annotations.file import AnnotationFile
from detection.data.annotations.overview import facts, facts_table
from detection.data.inspection import inspect
from tests.detection.annotation_files import content, rle
from tests.tiny_coco import ROOT

Register = Callable[..., str]


def said(cfg: CfgNode) -> str:
    parts: list[str] = []
    try:
        inspect(cfg, parts.append)
    except UserError as error:
        parts.append(f"error: {error}")
    return "\n\n".join(parts)


def as_file(data: dict[str, Any]) -> AnnotationFile:
    return AnnotationFile("a.json", data)


def test_facts_are_counted() -> None:
    data = content(images=4)
    items = data["annotations"]
    items[0]["iscrowd"] = 1
    items[1]["segmentation"] = rle(items[1])
    del items[2]["segmentation"]
    items[3]["area"] = 96.0**2
    data["annotations"] = items[:9]
    data["images"][1] |= {"width": 300, "height": 200}
    found = facts(as_file(data))
    small = sum(item["area"] < 32**2 for item in items[1:9])
    assert found == {
        "images": "4",
        "without an object": "1",
        "width × height": "120×90 to 300×200, mostly 120×90",
        "classes": "3",
        "objects": "8",
        "small": f"{small} ({100 * small / 8:.1f} %)",
        "medium": f"{7 - small} ({100 * (7 - small) / 8:.1f} %)",
        "large": "1 (12.5 %)",
        "objects an image": "2.0, at most 3",
        "boxes": "8 (100.0 %)",
        "masks, polygons": "6 (75.0 %)",
        "masks, run-length encoded": "1 (12.5 %)",
        "crowds": "1 (11.1 %)",
    }


def test_a_set_without_objects_has_dashes() -> None:
    data = {**content(), "annotations": []}
    assert facts(as_file(data))["small"] == "–"
    assert "–" in facts_table({"empty": as_file(data)})
    assert proposed_size([as_file(data)]) is None


def cfg_of(name: str) -> CfgNode:
    cfg = get_cfg()
    add_spnas_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/detection" / name))
    return cfg


def test_input_boxes_are_those_after_detectron2s_resizing() -> None:
    data = content(images=2)
    data["images"][1] |= {"width": 60, "height": 400}
    size = InputSize(100, 150)
    found = input_boxes([as_file(data)], size)
    for box, item in zip(found, data["annotations"], strict=True):
        image = data["images"][item["image_id"] - 1]
        pixels = np.zeros((image["height"], image["width"], 3), np.uint8)
        resize = T.ResizeShortestEdge(size.short, size.long).get_transform(pixels)
        x, y, w, h = item["bbox"]
        left, top, right, bottom = resize.apply_box(np.array([[x, y, x + w, y + h]], float))[0]
        np.testing.assert_allclose(
            box, [right - left, bottom - top], rtol=0.03
        )  # sides of images are rounded


@pytest.mark.parametrize("name", ["mask_rcnn_spnas_fpn_1x.yaml", "retinanet_spnas_fpn_1x.yaml"])
def test_overlaps_are_those_of_detectron2s_anchors(name: str) -> None:
    """Of every object with the best anchor around its own centre."""
    cfg = cfg_of(name)
    boxes = np.random.default_rng(1).uniform(10, 300, (40, 2))
    ours = configured_anchors(cfg, boxes)
    assert ours is not None
    strides = [2**level for level in range(2, 7)]
    generator = DefaultAnchorGenerator(
        sizes=ours.sizes, aspect_ratios=[ours.ratios], strides=strides, offset=0.5
    )
    anchors = Boxes(np.concatenate([cell.numpy() for cell in generator.cell_anchors]))  # type: ignore[arg-type]
    objects = Boxes(np.concatenate([-boxes / 2, boxes / 2], 1))  # type: ignore[arg-type]
    best = pairwise_iou(objects, anchors).max(1).values.mean()
    assert ours.overlap == pytest.approx(float(best), abs=1e-4)


@pytest.mark.parametrize("name", ["mask_rcnn_spnas_fpn_1x.yaml", "retinanet_spnas_fpn_1x.yaml"])
@pytest.mark.parametrize("scale", [12, 60, 300])
def test_proposed_anchors_fit_better(name: str, scale: int) -> None:
    """Tall objects of one size; shape and number of the configuration's anchors stay."""
    cfg = cfg_of(name)
    boxes = np.random.default_rng(1).normal([scale, 3 * scale], scale / 10, (500, 2))
    ours, found = configured_anchors(cfg, boxes), proposed_anchors(cfg, boxes)
    assert ours is not None and found is not None
    assert found.overlap >= ours.overlap
    assert np.shape(found.sizes) == np.shape(ours.sizes)
    assert len(found.ratios) == len(ours.ratios)
    assert found.overlap > 0.8 or scale == 12  # coarse levels have no anchors that small
    cfg.merge_from_list([item for pair in found.pairs().items() for item in map(str, pair)])
    assert configured_anchors(cfg, boxes) == found


def test_the_input_is_as_large_as_small_objects_need() -> None:
    data = content(images=40)
    for image in data["images"]:
        image |= {"width": 1200, "height": 900}
    sides = []
    for item in data["annotations"]:
        item["bbox"] = [10 * value for value in item["bbox"]]
        sides.append(np.sqrt(item["bbox"][2] * item["bbox"][3]))
    # The smallest tenth would be 24 px in an image that is far below the least size.
    assert proposed_size([as_file(data)]) == InputSize(320, 416)
    for item in data["annotations"]:
        item["bbox"] = [value / 3 for value in item["bbox"]]
    found = proposed_size([as_file(data)])
    assert found is not None
    wanted = 24 / (np.quantile(sides, 0.1) / 3) * 900
    assert 320 < found.short < 800
    assert abs(found.short - wanted) <= 16
    for item in data["annotations"]:
        item["bbox"] = [value / 9 for value in item["bbox"]]
    assert proposed_size([as_file(data)]) == InputSize(800, 1056)


def test_what_is_proposed_can_be_pasted(tiny_cfg: CfgNode) -> None:
    tiny_cfg.INPUT.MASK_FORMAT = "polygon"
    tiny_cfg.TEST.DETECTIONS_PER_IMAGE = 2
    text = said(tiny_cfg)
    block = re.search(r"^((?:    .*\n)+)", text, re.MULTILINE)
    assert block is not None
    words = shlex.split(block[1].replace("\\\n", " "))
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    assert pairs["INPUT.MASK_FORMAT"] == "bitmask"
    assert pairs["TEST.DETECTIONS_PER_IMAGE"] == "3"
    assert len(ast.literal_eval(pairs["MODEL.ANCHOR_GENERATOR.SIZES"])) == 5
    tiny_cfg.merge_from_list(words)
    assert "MODEL.ROI_HEADS.NUM_CLASSES" not in pairs
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    text = said(tiny_cfg)
    assert "MODEL.ROI_HEADS.NUM_CLASSES 3" in text
    expected = "error: MODEL.ROI_HEADS.NUM_CLASSES is 80, but data set 'tiny_train' has 3 cl"
    assert f"tiny_train:\n- {expected}" in text
    assert "nothing is odd" not in text
    assert text.splitlines()[-1].startswith(expected)


def test_all_that_is_wrong_is_said(register: Register, tiny_cfg: CfgNode, own_json: Path) -> None:
    """Also where a run would stop at the first: ids that stand twice, then boxes."""
    data = json.loads(own_json.read_text())
    data["images"][1]["id"] = data["images"][0]["id"]
    data["annotations"][0]["bbox"] = [1, 2]
    data["annotations"][8]["bbox"] = [4, 4, 0, 5]
    own_json.write_text(json.dumps(data))
    name = register(own_json)
    tiny_cfg.DATASETS.TRAIN = (name,)
    text = said(tiny_cfg)
    assert f"{name}:\n- error: 1 × image ids that stand twice, first 100, of '0.jpg'" in text
    assert "- error: 1 × boxes that are not four finite numbers" in text
    assert "- oddity: 1 × boxes of no width or height" in text
    assert "tiny_val:\n- nothing is odd" in text
    assert text.splitlines()[-1].startswith(f"error: data set '{name}': 1 × image ids that stand")
    own_json.write_text("{")
    with pytest.raises(UserError, match="is not valid COCO JSON"):
        inspect(tiny_cfg, print)
    tiny_cfg.DATASETS.TRAIN = tiny_cfg.DATASETS.TEST = ()
    with pytest.raises(UserError, match="are empty"):
        inspect(tiny_cfg, print)


def test_a_training_set_without_objects(
    register: Register, tiny_cfg: CfgNode, own_json: Path
) -> None:
    data = json.loads(own_json.read_text())
    count = len(data["images"])
    own_json.write_text(json.dumps({**data, "annotations": []}))
    name = register(own_json)
    tiny_cfg.DATASETS.TRAIN = (name,)
    text = said(tiny_cfg)
    assert f"oddity: {count} × images of a training set, all of them, without an object" in text
    assert text.splitlines()[-1].startswith(f"error: no image of {name} has an annotated object")
    tiny_cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert "\nerror: " not in said(tiny_cfg)
    tiny_cfg.DATASETS.TRAIN, tiny_cfg.DATASETS.TEST = ("tiny_train",), (name,)
    assert f"oddity: {count} × images of a test set, all of them, without an object" in said(
        tiny_cfg
    )


def test_missing_images_are_counted(register: Register, tiny_cfg: CfgNode, own_json: Path) -> None:
    data = json.loads(own_json.read_text())
    for image in data["images"][:2]:
        image["file_name"] = f"absent_{image['file_name']}"
    own_json.write_text(json.dumps(data))
    name = register(own_json)
    tiny_cfg.DATASETS.TRAIN = (name,)
    text = said(tiny_cfg)
    count = f"(2 of {len(data['images'])} are missing)"
    assert f"{name}:\n- error: no image '" in text and count in text
    assert text.splitlines()[-1].startswith(f"error: data set '{name}': no image '")


@pytest.mark.parametrize(("classes", "code"), [("3", 0), ("80", 2)])
def test_the_tool(
    tiny_coco: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    classes: str,
    code: int,
) -> None:
    pairs = ["DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "('tiny_val',)"]
    pairs += ["MODEL.ROI_HEADS.NUM_CLASSES", classes]
    monkeypatch.setattr(sys, "argv", ["check_data.py", *pairs])
    found = 0
    try:
        runpy.run_path(str(ROOT / "tools/check_data.py"), run_name="__main__")
    except SystemExit as error:
        found = int(error.code or 0)
    output = capsys.readouterr()
    assert found == code
    assert "| disc" in output.out and "INPUT.MIN_SIZE_TRAIN" in output.out
    assert bool(output.err.count("error: ")) == bool(code)
