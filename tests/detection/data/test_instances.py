"""Objects without a mask train the box and are left out of the mask loss."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from detectron2.utils.events import EventStorage

from detection.data.checks import load_records
from detection.data.instances import HAS_MASK, masked_instances
from detection.data.loader import build_train_loader
from detection.data.mapper import CheckedDatasetMapper
from detection.trainer import DetectionTrainer

SIZE = (40, 60)


def item(box: list[float], mask: Any = None, number: int = 0) -> dict[str, Any]:
    made = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": number, "iscrowd": 0}
    return made if mask is None else {**made, "segmentation": mask}


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([x, y, x + side, y, x + side, y + side, x, y + side])


def bitmap(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[rows, columns] = 1
    return mask


@pytest.mark.parametrize(
    ("mask_format", "masks", "kind"),
    [
        ("polygon", [[square(2, 3, 8)], None], PolygonMasks),
        ("bitmask", [[square(2, 3, 8)], None], BitMasks),
        ("polygon", [bitmap(slice(3, 11), slice(2, 10)), None], BitMasks),
        ("polygon", [None, None], PolygonMasks),
    ],
)
def test_objects_with_and_without_masks(mask_format: str, masks: list[Any], kind: type) -> None:
    boxes = [[2, 3, 10, 11], [20, 10, 50, 30]]
    made = [item(box, mask, n) for n, (box, mask) in enumerate(zip(boxes, masks, strict=True))]
    found = masked_instances(made, SIZE, mask_format)
    assert found.gt_boxes.tensor.tolist() == boxes
    assert found.gt_classes.tolist() == [0, 1]
    assert found.get(HAS_MASK).tolist() == [mask is not None for mask in masks]
    assert isinstance(found.gt_masks, kind)


def test_a_mask_without_a_pixel_keeps_its_box() -> None:
    made = [item([2, 3, 10, 11], [square(2, 3, 0.2)]), item([4, 4, 9, 9], [square(4, 4, 5)])]
    found = masked_instances(made, SIZE, "bitmask")
    assert found.get(HAS_MASK).tolist() == [False, True]
    assert len(masked_instances([item([5, 5, 5, 9], [square(5, 5, 5)])], SIZE, "polygon")) == 0
    assert len(masked_instances([], SIZE, "polygon")) == 0


def test_boxes_after_a_crop() -> None:
    """Of masks where there are any: one that was cut away takes its box along."""
    made = [
        item([0, 0, 60, 40], bitmap(slice(5, 9), slice(10, 30))),
        item([1, 1, 8, 9]),
        item([3, 3, 9, 9], bitmap(slice(0, 0), slice(0, 0))),
    ]
    found = masked_instances(made, SIZE, "bitmask", recompute_boxes=True)
    assert found.gt_boxes.tensor.tolist() == [[10, 5, 30, 9], [1, 1, 8, 9]]
    assert found.get(HAS_MASK).tolist() == [True, False]


@pytest.mark.parametrize("crop", [True, False])
def test_the_mapper_is_detectron2s(tiny_cfg: CfgNode, crop: bool) -> None:
    tiny_cfg.INPUT.CROP.ENABLED = crop
    ours, theirs = CheckedDatasetMapper(tiny_cfg, True), DatasetMapper(tiny_cfg, True)
    for record in load_records("tiny_train")[:5]:
        if crop:  # fvcore crops polygons by a package that not everybody has
            record["annotations"] = record["annotations"][1:]
        found = []
        for mapper in (ours, theirs):
            np.random.seed(4)
            found.append(mapper(copy.deepcopy(record))["instances"])
        assert found[0].remove(HAS_MASK) is None
        assert set(found[0].get_fields()) == set(found[1].get_fields())
        assert found[0].gt_boxes.tensor.equal(found[1].gt_boxes.tensor)
        assert found[0].gt_masks.tensor.equal(found[1].gt_masks.tensor)


def losses(model: torch.nn.Module, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    with EventStorage():
        found: dict[str, torch.Tensor] = model(batch)
    return found


@pytest.mark.parametrize("lite", [False, True])
def test_what_an_object_without_a_mask_trains(tiny_cfg: CfgNode, lite: bool) -> None:
    """Its box counts as ever; the mask loss is that of the others alone."""
    if lite:
        tiny_cfg.MODEL.ROI_MASK_HEAD.NAME = "LiteMaskHead"
    tiny_cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 64
    model = DetectionTrainer.build_model(tiny_cfg).train()
    for module in model.modules():  # its statistics would change with the number of masks
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    batch = next(iter(build_train_loader(tiny_cfg)))
    plain = losses(model, batch)
    boxes_only = copy.deepcopy(batch)
    for image in boxes_only:
        has_mask = image["instances"].get(HAS_MASK)
        has_mask[:2] = False
        image["instances"].gt_masks.tensor[:2] = False
    some = losses(model, boxes_only)
    for name in ("loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"):
        assert some[name].equal(plain[name])
    assert not some["loss_mask"].equal(plain["loss_mask"])
    # The masks that are left out may be anything.
    for image in boxes_only:
        image["instances"].gt_masks.tensor[:2] = True
    assert losses(model, boxes_only)["loss_mask"].equal(some["loss_mask"])
    for image in boxes_only:
        image["instances"].get(HAS_MASK)[:] = False
    assert losses(model, boxes_only)["loss_mask"] == 0


def test_training_goes_on_with_boxes_alone(tiny_cfg: CfgNode) -> None:
    records = load_records("tiny_train")
    for record in records:
        for annotation in record["annotations"][::2]:
            annotation.pop("segmentation")
    for form in ("polygon", "bitmask"):
        tiny_cfg.INPUT.MASK_FORMAT = form
        mapper = CheckedDatasetMapper(tiny_cfg, True)
        batch = [mapper(record) for record in itertools.islice(records, 3)]
        model = DetectionTrainer.build_model(tiny_cfg).train()
        found = losses(model, batch)
        sum(found.values()).backward()  # type: ignore[union-attr]
        assert all(torch.isfinite(value) for value in found.values())
