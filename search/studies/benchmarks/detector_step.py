"""Mask R-CNN's training and inference step on ``spnas_100``, beside Detectron2's on R50-FPN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detection.engine.provenance import provenance
from detection.trainer import DetectionTrainer
from search.config import load_search_config
from search.studies.benchmarks.costs import (
    Case,
    Step,
    check_counts,
    check_device,
    costs,
    precision_of,
    with_ratios,
)
from search.studies.markdown import beside, table

OURS = "detection/mask_rcnn_spnas_fpn_1x.yaml"
THEIRS = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
DETECTORS = ("spnas_100", "R50-FPN")
"""The project's detector of that name, and Detectron2's, with random weights."""

OBJECTS = 7
"""Per image, as in COCO."""
POINTS = 24
"""Corners of an object's outline, as in COCO on average."""


def detector_config(detector: str, device: str) -> CfgNode:
    """The configuration of one of ``DETECTORS``."""
    theirs = {"R50-FPN": model_zoo.get_config_file(THEIRS)}
    options = ["MODEL.DEVICE", device, "MODEL.WEIGHTS", ""]
    return load_search_config(theirs.get(detector, OURS), options)


def build_detector(cfg: CfgNode) -> nn.Module:
    """The detector with random weights, and as much work behind the backbone whatever it is.

    Where random features would have a say in what is proposed and detected, one backbone's
    detector would have 1,000 boxes to look at and another's ten. Here anchors are proposed as they
    are, at random, and every proposal is surely of one class.
    """
    torch.manual_seed(0)
    model: Any = DetectionTrainer.build_model(cfg)
    head, predictor = model.proposal_generator.rpn_head, model.roi_heads.box_predictor
    for layer in (head.objectness_logits, head.anchor_deltas, *predictor.children()):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        predictor.cls_score.bias[0] = 5.0
    head.register_forward_hook(_random_objectness)
    _settle_norms(model.backbone, cfg)
    return model


def _random_objectness(
    head: nn.Module, inputs: Any, found: tuple[list[Tensor], list[Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    logits, deltas = found
    return [level + torch.rand_like(level) for level in logits], deltas


def _settle_norms(backbone: nn.Module, cfg: CfgNode) -> None:
    """Keeps random features at the size of trained ones, so that no precision overflows.

    Batch norms get the statistics of a batch. Frozen ones have none to learn: those at the end of
    a residual branch multiply it by 0, which costs as much as any other factor.
    """
    for block in backbone.modules():
        if isinstance(block, BottleneckBlock):
            nn.init.zeros_(block.conv3.norm.weight)
    norms = [norm for norm in backbone.modules() if isinstance(norm, _BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        backbone.train()(torch.randn(2, 3, 64, 64, device=cfg.MODEL.DEVICE))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def made_up_batch(cfg: CfgNode, batch: int, height: int, width: int) -> list[dict[str, Any]]:
    """Images with objects, as the detector's data mapper gives them.

    Args:
        cfg: says how masks are written, and how many classes there are.
        batch: images.
        height: of an image in pixels.
        width: of an image in pixels.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(batch):
        pixels = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
        instances = _instances(cfg, rng, height, width)
        record = {"image": pixels, "instances": instances, "height": height, "width": width}
        found.append(record)
    return found


def _instances(cfg: CfgNode, rng: np.random.Generator, height: int, width: int) -> Instances:
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    radii = rng.uniform(4, min(height, width) / 4, (OBJECTS, 2))
    centres = radii + rng.random((OBJECTS, 2)) * (np.array([width, height]) - 2 * radii)
    outlines = [[(c + r * circle).ravel()] for c, r in zip(centres, radii, strict=True)]
    instances = Instances((height, width))
    boxes = np.concatenate([centres - radii, centres + radii], 1)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes).float())
    classes = rng.integers(0, cfg.MODEL.ROI_HEADS.NUM_CLASSES, OBJECTS)
    instances.gt_classes = torch.from_numpy(classes)
    polygons = PolygonMasks(outlines)
    bitmaps = cfg.INPUT.MASK_FORMAT == "bitmask"
    instances.gt_masks = (
        BitMasks.from_polygon_masks(polygons, height, width) if bitmaps else polygons
    )
    return instances


def make_training_step(
    detector: str, device: str, batch: int, size: tuple[int, int], precision: str
) -> Step:
    """Forward, losses, backward, optimizer, on made-up images.

    Args:
        detector: one of ``DETECTORS``.
        device: ``cpu`` or ``cuda``.
        batch: images per step.
        size: height and width of the images in pixels.
        precision: one of ``PRECISIONS``.
    """
    cfg = detector_config(detector, device)
    model = build_detector(cfg).train()
    optimizer = DetectionTrainer.build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # every step has the same work
    computed = precision_of(precision, device)
    scaler = computed.scaler()
    images = made_up_batch(cfg, batch, *size)
    storage = EventStorage()

    def step() -> None:
        with storage, computed.autocast():
            losses: dict[str, Tensor] = model(images)
        optimizer.zero_grad()
        scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        scaler.take(optimizer)

    return step


def make_inference_step(
    detector: str, device: str, batch: int, size: tuple[int, int], precision: str
) -> Step:
    """Images → boxes and masks, at the images' own size.

    Args:
        detector: one of ``DETECTORS``.
        device: ``cpu`` or ``cuda``.
        batch: images at a time.
        size: height and width of the images in pixels.
        precision: one of ``PRECISIONS``.
    """
    cfg = detector_config(detector, device)
    model = build_detector(cfg).eval()
    images = made_up_batch(cfg, batch, *size)
    computed = precision_of(precision, device)

    def step() -> list[dict[str, Any]]:
        with torch.no_grad(), computed.autocast():
            found: list[dict[str, Any]] = model(images)
        return found

    return step


KINDS: Mapping[str, Callable[..., Step]] = {
    "training": make_training_step,
    "inference": make_inference_step,
}


def detector_costs(
    kind: str, device: str, batch: int, size: tuple[int, int], precision: str, repeats: int
) -> dict[str, Any]:
    """Time and memory of both detectors, in turns, and the ratios to R50-FPN's.

    Args:
        kind: one of ``KINDS``.
        device: ``cpu`` or ``cuda``.
        batch: images per step.
        size: height and width of the images in pixels.
        precision: one of ``PRECISIONS``.
        repeats: timed rounds.
    """
    make = KINDS[kind]
    cases = [Case(name, partial(make, name, device, batch, size, precision)) for name in DETECTORS]
    return with_ratios(costs(cases, device, repeats), DETECTORS[-1])


def detector_step_report(
    device: str, batch: int, size: tuple[int, int], precision: str, repeats: int
) -> dict[str, Any]:
    """Training at ``batch`` images per step, and inference of one image at a time."""
    check_device(device)
    check_counts(batch=batch, size=min(size), repeats=repeats)
    setting = {"batch": batch, "size": size, "precision": precision, "repeats": repeats}
    found = {
        kind: detector_costs(
            kind, device, batch if kind == "training" else 1, size, precision, repeats
        )
        for kind in KINDS
    }
    return {**provenance(device), **setting, "steps": found}


def detector_step_section(study: Mapping[str, Any]) -> str:
    """Mask R-CNN on the project's backbone beside R50-FPN."""
    height, width = study["size"]
    rows = []
    for kind, found in study["steps"].items():
        batch = study["batch"] if kind == "training" else 1
        for name, cost in found.items():
            time, ratio = f"{cost['seconds']:.2f} s", f"{cost['time_ratio']:.2f}"
            rows.append([f"{kind}, {name}", str(batch), time, ratio])
    setting = f"Mask R-CNN, {height} × {width} px, {study['precision']}"
    return f"{table([setting, 'images', 'time', 'ratio'], rows)}\n\n{beside(study)}"
