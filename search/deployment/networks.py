"""Backbone, pyramid and classifier as what is exported: modules, and what their contracts say."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from detectron2.modeling import Backbone, build_backbone
from detectron2.modeling.backbone.fpn import FPN
from torch import Tensor, nn

from backbones.architecture import Architecture
from backbones.deployment.contract import Preprocessing, Resizing, TensorSpec
from backbones.deployment.exporting import Exportable
from backbones.errors import UserError
from backbones.network import build_classifier, build_feature_extractor
from backbones.weights import load_weights
from detection.checkpointing import DetectorCheckpointer
from detection.modeling.backbone import FEATURES
from search.classification.data import known_classes
from search.deployment.sources import Source

logger = logging.getLogger(__name__)

Size = tuple[int, int]

_CLASSIFIER_PARTS = ("head.", "hidden.", "classifier.")
_STRIDE = 32
_CROP_PCT = 0.875
"""Of networks without a run: ImageNet's usual one."""

_DEEPEST = 4
"""Of the five maps, at strides 2 to 32, those from stride 4 on are exported."""


def exportable_backbone(source: Source, size: Size | None = None) -> Exportable:
    """The maps at strides 4, 8, 16 and 32.

    Raises:
        UserError: if the weights are of another architecture.
    """
    architecture = source.architecture
    module = build_feature_extractor(architecture, range(1, 1 + _DEEPEST))
    load_weights(module, source.state, source.weights, _CLASSIFIER_PARTS)
    outputs = tuple(
        TensorSpec(name, (), meaning="feature map", stride=stride)
        for name, stride in list(FEATURES.items())[1:]
    )
    side = _side(source)
    return Exportable(
        "backbone",
        module.eval(),
        outputs,
        _preprocessing(source, Resizing(interpolation="bilinear")),
        size or (side, side),
        architecture.to_dict(),
    )


def exportable_classifier(source: Source, size: Size | None = None) -> Exportable:
    """Logits of the classes.

    Raises:
        UserError: if the weights have no classifier, or are of another architecture.
    """
    architecture = source.architecture
    weight = source.state.get("classifier.weight")
    if weight is None:
        raise UserError(
            f"'{source.weights}' has no classifier; use --kind backbone, or name a network that "
            "was trained to classify"
        )
    module = build_classifier(architecture, len(weight))
    load_weights(module, source.state, source.weights)
    side = _side(source)
    height, width = size or (side, side)
    if height != width:
        raise UserError(
            f"--input-size is {height} {width}; a classifier sees the square middle of a photo: "
            f"use --input-size {height} {height}"
        )
    crop_pct = source.cfg.CLASSIFICATION.CROP_PCT if source.cfg else _CROP_PCT
    resizing = Resizing("centre_crop", height, crop_pct, interpolation="bicubic")
    return Exportable(
        "classifier",
        module.eval(),
        (TensorSpec("logits", (), meaning="logit of every class, in the order of labels"),),
        _preprocessing(source, resizing),
        (height, width),
        architecture.to_dict(),
        _labels(source, len(weight)),
    )


def _side(source: Source) -> int:
    """Side of the square images that a network was trained on."""
    if source.cfg is not None and not source.is_detector:
        return int(source.cfg.CLASSIFICATION.INPUT_SIZE) or source.architecture.input.size
    return source.architecture.input.size


def _labels(source: Source, count: int) -> tuple[str, ...]:
    """Names of the classes, by the data of the run; empty, with a warning, without."""
    dataset = source.cfg.CLASSIFICATION.DATASET if source.cfg else ""
    if not (names := known_classes(dataset, count)):
        logger.warning(
            "No names of classes: the data '%s' are not at hand; the contract has numbers alone",
            dataset,
        )
    return names


class _Maps(nn.Module):
    """A pyramid that returns its maps in a list."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) → maps from fine to coarse."""
        return list(self.backbone(images).values())


def exportable_pyramid(source: Source, size: Size | None = None) -> Exportable:
    """Backbone and feature pyramid of a detector, images padded to multiples of 32.

    Raises:
        UserError: if the configuration has no pyramid, or the weights are of another architecture.
    """
    cfg = source.cfg
    if cfg is None or not source.is_detector:
        raise UserError(
            "--kind pyramid needs a detector; name the folder of its run, or a checkpoint and "
            "--config-file configs/detection/…"
        )
    own = cfg.clone()
    own.defrost()
    own.MODEL.DEVICE = "cpu"
    backbone = build_backbone(own)
    if not isinstance(backbone, FPN):
        raise UserError(
            f"MODEL.BACKBONE.NAME is '{own.MODEL.BACKBONE.NAME}', which has no feature pyramid; "
            "use --kind backbone"
        )
    module = _Maps(backbone).eval()
    _load_pyramid(module, source.weights)
    shapes = backbone.output_shape()
    outputs = tuple(
        TensorSpec(name, (), meaning="feature map", stride=shape.stride)
        for name, shape in shapes.items()
    )
    side = -(-own.INPUT.MIN_SIZE_TEST // _STRIDE) * _STRIDE
    divisor = max(_STRIDE, backbone.size_divisibility)
    for given in size or ():
        if given % divisor:
            raise UserError(
                f"--input-size has {given}; a pyramid takes multiples of {divisor}: use "
                f"{-(-given // divisor) * divisor}"
            )
    resizing = Resizing(
        "shorter_side",
        own.INPUT.MIN_SIZE_TEST,
        max_size=own.INPUT.MAX_SIZE_TEST,
        interpolation="bilinear",
        divisor=divisor,
    )
    return Exportable(
        "pyramid",
        module,
        outputs,
        _preprocessing(source, resizing),
        size or (side, side),
        source.architecture.to_dict(),
    )


def _load_pyramid(module: _Maps, weights: str) -> None:
    """Loads what a detector's checkpoint has of backbone and pyramid; the backbone has to fit."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    DetectorCheckpointer(module).load(weights)
    untouched = [
        name
        for name, value in module.state_dict().items()
        if "bottom_up" not in name and value.dim() > 1 and torch.equal(value, before[name])
    ]
    if untouched:
        logger.warning(
            "'%s' has no pyramid: its %d tensors are random, good for timing alone",
            weights,
            len(untouched),
        )


def _preprocessing(source: Source, resizing: Resizing) -> Preprocessing:
    """How images become inputs: as the detector's configuration says, else as the network's."""
    if source.is_detector and source.cfg is not None:
        cfg = source.cfg
        order = "BGR" if cfg.INPUT.FORMAT == "BGR" else "RGB"
        return Preprocessing(
            order,  # type: ignore[arg-type]
            mean=_figures(cfg.MODEL.PIXEL_MEAN),
            std=_figures(cfg.MODEL.PIXEL_STD),
            resizing=resizing,
        )
    return _of_architecture(source.architecture, resizing)


def _of_architecture(architecture: Architecture, resizing: Resizing) -> Preprocessing:
    images = architecture.input
    return Preprocessing(
        mean=tuple(255 * value for value in images.mean),
        std=tuple(255 * value for value in images.std),
        resizing=resizing,
    )


def _figures(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
