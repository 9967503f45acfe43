"""What a meta-architecture asks of data sets follows from its class, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY, build_backbone
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
from detectron2.modeling.roi_heads import ROIHeads, StandardROIHeads
from detectron2.structures import Boxes, Instances
from torch import nn

from backbones import UserError
from detection.data.checks import check_test_sets
from detection.data.loader import build_train_loader
from detection.evaluation import COCOEvaluator, build_evaluator
from detection.modeling.heads.lite import LiteRetinaNet
from detection.modeling.meta_arch import (
    evaluated_tasks,
    meta_architecture,
    num_classes,
    num_classes_key,
    wants_masks,
)
from detection.trainer import DetectionTrainer

RCNN, RETINANET = "MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.RETINANET.NUM_CLASSES"
EXPECTED = {
    "GeneralizedRCNN": (RCNN, True),
    "PanopticFPN": (RCNN, True),
    "RetinaNet": (RETINANET, False),
    "LiteRetinaNet": (RETINANET, False),
    "ProposalNetwork": (None, False),
    "SemanticSegmentor": (None, False),
}


class OwnRetinaNet(RetinaNet):
    """Another loss, say."""


class OwnRCNN(GeneralizedRCNN):
    """With an argument more than Detectron2's."""

    @configurable
    def __init__(self, *, weight: float, **options: Any) -> None:
        super().__init__(**options)
        self.weight = weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "weight": 0.5}


class OwnDetector(nn.Module):
    """Finds one box, of a class that a key of its own may exclude."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.backbone = build_backbone(cfg)
        self.classes = cfg.MODEL.OWN.CLASSES

    def forward(self, images: list[dict[str, Any]]) -> Any:
        maps = [self.backbone(item["image"][None] / 255)["res2"].mean() for item in images]
        if self.training:
            return {"loss_own": torch.stack(maps).square().sum()}
        found = []
        for item in images:
            one = Instances((item.get("height", 64), item.get("width", 64)))
            one.pred_boxes = Boxes(torch.tensor([[4.0, 6.0, 22.0, 20.0]]))
            one.scores, one.pred_classes = torch.ones(1), torch.tensor([self.classes - 1])
            found.append({"instances": one})
        return found


def own_function(cfg: CfgNode) -> nn.Module:
    """Builds one of Detectron2's, but who knows by which keys."""
    return RetinaNet(cfg)


class BoxesAlone(ROIHeads):
    """Not one that reads ``MASK_ON``."""


class OwnROIHeads(StandardROIHeads):
    """One that does."""


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The classes of one's own, for the length of a test."""
    own = [OwnRetinaNet, OwnRCNN, OwnDetector, own_function]
    heads = [BoxesAlone, OwnROIHeads]
    for registry, items in ((META_ARCH_REGISTRY, own), (ROI_HEADS_REGISTRY, heads)):
        for item in items:
            registry.register(item)
    yield
    for registry, items in ((META_ARCH_REGISTRY, own), (ROI_HEADS_REGISTRY, heads)):
        for item in items:
            del registry._obj_map[item.__name__]


@pytest.fixture
def boxes_cfg(
    tiny_cfg: CfgNode, own_json: Path, register: Callable[..., str], tmp_path: Path
) -> CfgNode:
    """Three steps on a data set without masks, although ``MASK_ON`` is True."""
    content = json.loads(own_json.read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    own_json.write_text(json.dumps(content))
    tiny_cfg.DATASETS.TRAIN = tiny_cfg.DATASETS.TEST = (register(own_json),)
    tiny_cfg.MODEL.RETINANET.NUM_CLASSES = 3
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    tiny_cfg.MODEL.SPNAS.LATENCY_TABLE = ""
    tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.SOLVER.STEPS = 3, ()
    tiny_cfg.TEST.EVAL_PERIOD = 3
    return tiny_cfg


def trained(cfg: CfgNode) -> dict[str, Any]:
    """The results of a whole run by task."""
    trainer = DetectionTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    results = json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())
    (scores,) = results["detection"]["scores"].values()
    assert isinstance(scores, dict)
    return scores


def test_every_registered_meta_architecture(tiny_cfg: CfgNode) -> None:
    known = {
        "OwnRetinaNet": (RETINANET, False),
        "OwnRCNN": (RCNN, True),
        "OwnDetector": (None, False),
        "own_function": (None, False),
        **EXPECTED,
    }
    names = [name for name, _ in META_ARCH_REGISTRY]
    assert set(known) <= set(names)
    tiny_cfg.MODEL.RETINANET.NUM_CLASSES = 5
    for name in names:
        tiny_cfg.MODEL.META_ARCHITECTURE = name
        key, masks = known.get(name, (None, False))
        assert (num_classes_key(tiny_cfg), wants_masks(tiny_cfg)) == (key, masks), name
        assert num_classes(tiny_cfg) == {RCNN: 3, RETINANET: 5, None: None}[key]
        tasks = [["bbox"], ["bbox", "segm"]][masks] if key else None
        assert evaluated_tasks(tiny_cfg) == tasks
        tiny_cfg.MODEL.MASK_ON = False
        assert not wants_masks(tiny_cfg)
        tiny_cfg.MODEL.MASK_ON = True


@pytest.mark.parametrize(
    ("heads", "masks"),
    [
        *(("StandardROIHeads", True), ("CascadeROIHeads", True), ("Res5ROIHeads", True)),
        *(("OwnROIHeads", True), ("BoxesAlone", False), ("absent", False)),
    ],
)
def test_masks_are_asked_for_by_roi_heads_that_have_them(
    tiny_cfg: CfgNode, heads: str, masks: bool
) -> None:
    tiny_cfg.MODEL.ROI_HEADS.NAME = heads
    assert wants_masks(tiny_cfg) == masks
    assert evaluated_tasks(tiny_cfg) == (["bbox", "segm"] if masks else None)
    assert num_classes_key(tiny_cfg) == RCNN


def test_keypoints_are_scored_where_they_are_on(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.KEYPOINT_ON = True
    assert evaluated_tasks(tiny_cfg) == ["bbox", "segm", "keypoints"]


@pytest.mark.parametrize("name", ["LiteRetinaNet", "OwnRetinaNet"])
def test_retinanets_train_on_boxes_alone(boxes_cfg: CfgNode, name: str) -> None:
    boxes_cfg.MODEL.META_ARCHITECTURE = name
    boxes_cfg.MODEL.BACKBONE.NAME = "build_retinanet_spnas_fpn_backbone"
    boxes_cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    boxes_cfg.MODEL.RETINANET.NUM_CONVS = 1
    boxes_cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    assert list(trained(boxes_cfg)) == ["bbox"]
    boxes_cfg.MODEL.RETINANET.NUM_CLASSES = 80
    with pytest.raises(UserError, match=r"MODEL.RETINANET.NUM_CLASSES is 80, .* has 3 classes"):
        check_test_sets(boxes_cfg)


def test_a_subclass_of_an_rcnn_is_checked_as_one(boxes_cfg: CfgNode) -> None:
    boxes_cfg.MODEL.META_ARCHITECTURE = "OwnRCNN"
    with pytest.raises(UserError, match=r"MODEL.ROI_HEADS.NUM_CLASSES is 80, .* has 3 classes"):
        check_test_sets(boxes_cfg)
    boxes_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    with pytest.raises(UserError, match=r"has no segmentation; .* set MODEL.MASK_ON False"):
        build_train_loader(boxes_cfg)
    boxes_cfg.MODEL.MASK_ON = False
    assert list(trained(boxes_cfg)) == ["bbox"]


def test_a_detector_with_keys_of_its_own(boxes_cfg: CfgNode) -> None:
    boxes_cfg.MODEL.META_ARCHITECTURE = "OwnDetector"
    boxes_cfg.MODEL.OWN = CfgNode({"CLASSES": 1})
    boxes_cfg.MODEL.BACKBONE.NAME = "build_spnas_backbone"
    scores = trained(boxes_cfg)
    assert list(scores) == ["bbox"]
    assert scores["bbox"]["AP"] > 0  # the box is that of every first object


def test_a_function_is_asked_for_nothing(boxes_cfg: CfgNode) -> None:
    boxes_cfg.MODEL.META_ARCHITECTURE = "own_function"
    boxes_cfg.MODEL.RETINANET.NUM_CLASSES = 80
    check_test_sets(boxes_cfg)
    assert next(iter(build_train_loader(boxes_cfg)))


def test_masks_of_a_detector_of_ones_own_are_scored(tiny_cfg: CfgNode) -> None:
    """Nothing is known of it, so what it finds decides."""
    tiny_cfg.MODEL.META_ARCHITECTURE = "OwnDetector"
    tiny_cfg.TEST.NUM_VISUALIZATIONS = 0
    evaluator = build_evaluator(tiny_cfg, "tiny_val")
    assert isinstance(evaluator, COCOEvaluator)
    evaluator.reset()
    one = Instances((96, 72))
    one.pred_boxes = Boxes(torch.tensor([[4.0, 6.0, 22.0, 20.0]]))
    one.scores, one.pred_classes = torch.ones(1), torch.tensor([0])
    one.pred_masks = torch.zeros(1, 96, 72, dtype=torch.bool)
    one.pred_masks[:, 6:20, 4:22] = True
    evaluator.process([{"image_id": 100}], [{"instances": one}])
    scores = evaluator.evaluate()
    assert sorted(scores) == ["bbox", "segm"]


def test_names_that_are_not_registered(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.META_ARCHITECTURE = "LiteRetinanet"
    message = "unknown MODEL.META_ARCHITECTURE 'LiteRetinanet'; did you mean 'LiteRetinaNet'"
    for action in (meta_architecture, check_test_sets, DetectionTrainer):
        with pytest.raises(UserError, match=message):
            action(tiny_cfg)
    tiny_cfg.DATASETS.TEST = ()
    with pytest.raises(UserError, match=message):
        DetectionTrainer(tiny_cfg)
    tiny_cfg.MODEL.META_ARCHITECTURE = "xyz"
    with pytest.raises(UserError, match="'xyz'; expected one of GeneralizedRCNN, .*LiteRetinaNet"):
        num_classes_key(tiny_cfg)


def test_lite_retinanet_is_one_from_its_configuration(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.META_ARCHITECTURE = "LiteRetinaNet"
    assert meta_architecture(tiny_cfg) is LiteRetinaNet
    assert issubclass(LiteRetinaNet, RetinaNet)


@pytest.mark.parametrize(
    ("key", "name", "hint"),
    [
        ("BACKBONE.NAME", "build_spnas_fpn_backbon", "did you mean 'build_spnas_fpn_backbone'"),
        ("ROI_MASK_HEAD.NAME", "LiteMaskHed", "did you mean 'LiteMaskHead'"),
        ("RPN.HEAD_NAME", "LiteRPNHeads", "did you mean 'LiteRPNHead'"),
        ("ROI_HEADS.NAME", "xyz", "expected one of .*StandardROIHeads"),
    ],
)
def test_misspelled_parts_are_named(tiny_cfg: CfgNode, key: str, name: str, hint: str) -> None:
    tiny_cfg.merge_from_list([f"MODEL.{key}", name])
    with pytest.raises(UserError, match=f"unknown MODEL.{key} '{name}'; {hint}"):
        DetectionTrainer.build_model(tiny_cfg)
