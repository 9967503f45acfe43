"""What a detector's contract says of its files, and of the images that they take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from backbones.deployment.contract import Network, Preprocessing, Resizing, TensorSpec
from backbones.deployment.runtimes import Runtime
from backbones.errors import UserError, first_of
from detection.export.networks import StaticNetwork
from detection.modeling.backbone import SPNASBackbone

_DENSE = ("scores", "deltas")
_INPUTS = {
    "image": "resized and padded image, in [0, 255]",
    "features": "features of boxes, by RoIAlign from the maps of the network 'image'",
}
_MEANINGS = {
    "scores": "logits of classes, or of an object",
    "deltas": "moves of anchors or boxes",
    "masks": "logits of pixels of the object",
}


def image_rule(cfg: CfgNode, divisor: int, canvas: Sequence[int] | None) -> dict[str, Any]:
    """How :func:`detection.export.postprocess.steps.prepare` makes an input of an image.

    Raises:
        UserError: if the colours are neither RGB nor BGR.
    """
    if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
        raise UserError(
            f"INPUT.FORMAT is {cfg.INPUT.FORMAT}, which cannot be exported; expected RGB or BGR"
        )
    return {
        "order": cfg.INPUT.FORMAT,
        "shortest": cfg.INPUT.MIN_SIZE_TEST,
        "longest": cfg.INPUT.MAX_SIZE_TEST,
        "divisor": divisor,
        "canvas": list(canvas) if canvas else None,
        "padding": [float(value) for value in cfg.MODEL.PIXEL_MEAN],
    }


def canvas_of(
    cfg: CfgNode, divisor: int, input_size: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Height and width of the images of a format that has one size.

    Raises:
        UserError: if there is no limit to the size, or the one given is no multiple of the stride.
    """
    if input_size is None:
        if not cfg.INPUT.MIN_SIZE_TEST:
            raise UserError(
                "INPUT.MIN_SIZE_TEST is 0, so that images may have any size, and a LiteRT file has "
                "one: give --input-size HEIGHT WIDTH"
            )
        side = math.ceil(cfg.INPUT.MAX_SIZE_TEST / divisor) * divisor
        return side, side
    if any(side < divisor or side % divisor for side in input_size):
        raise UserError(
            f"--input-size is {input_size[0]} {input_size[1]}; expected multiples of {divisor}, "
            "the largest stride of the detector's pyramid"
        )
    return input_size


_PARTS = {
    "image": ("order", "shortest", "longest", "divisor", "canvas", "padding"),
    "proposals": ("candidates", "nms", "count", "smallest"),
    "boxes": ("features", "strides", "size", "sampling_ratio", "aligned", "batch", "box_weights"),
    "masks": ("features", "strides", "size", "sampling_ratio", "aligned", "batch", "threshold"),
}
_LEVEL = ("scores", "deltas", "stride", "offset", "anchors", "box_weights", "scale_clamp")


def check_complete(detector: Mapping[str, Any], path: str) -> None:
    """Insists on all that the post-processing reads.

    Args:
        detector: the part ``detector`` of a contract.
        path: of the contract, for the message.

    Raises:
        UserError: naming what is missing.
    """
    own = ("levels", "image", "score_threshold", "nms", "detections")
    rest = ("proposals",) if "boxes" in detector else ("candidates",)
    missing = [key for key in (*own, *rest) if key not in detector]
    for part, keys in _PARTS.items():
        missing += [f"{part}.{key}" for key in keys if key not in detector.get(part, keys)]
    for level in detector.get("levels", ()):
        missing += [f"levels.{key}" for key in _LEVEL if key not in level]
    if missing:
        raise UserError(
            f"the contract '{path}' is damaged: its 'detector' lacks {first_of(missing)}; export "
            "the detector again"
        )


def divisor_of(model: Any) -> int:
    """What height and width of a detector's input are multiples of."""
    return max(int(model.backbone.size_divisibility), 1)


def describe_file(
    network: StaticNetwork, runtime: Runtime, detector: dict[str, Any], file: str
) -> Network:
    """What the contract says of a network's file."""
    strides = {level[part]: level["stride"] for level in detector["levels"] for part in _DENSE}
    pooled = detector.get("boxes", {"features": (), "strides": ()})
    strides.update(zip(pooled["features"], pooled["strides"], strict=True))
    (entry,) = runtime.inputs
    outputs = zip(network.outputs, runtime.outputs, strict=True)
    return Network(
        file,
        inputs=(dataclasses.replace(entry, name=network.input, meaning=_INPUTS[network.input]),),
        outputs=tuple(_output(spec, name, strides.get(name)) for name, spec in outputs),
    )


def _output(spec: TensorSpec, name: str, stride: int | None) -> TensorSpec:
    meaning = _MEANINGS.get(name.partition("_")[0], "a level of the feature pyramid")
    return dataclasses.replace(spec, name=name, meaning=meaning, stride=stride)


def preprocessing_of(cfg: CfgNode, divisor: int) -> Preprocessing:
    """In the terms of the contract's other kinds; ``detector`` has the same in full."""
    shorter = cfg.INPUT.MIN_SIZE_TEST
    return Preprocessing(
        colour_order=cfg.INPUT.FORMAT,
        resizing=Resizing(
            rule="shorter_side" if shorter else "none",
            size=shorter or None,
            max_size=cfg.INPUT.MAX_SIZE_TEST if shorter else None,
            interpolation="bilinear",
            divisor=divisor,
        ),
    )


def architecture_of(model: nn.Module) -> dict[str, Any]:
    """Of a backbone that has one as data."""
    for module in model.modules():
        if isinstance(module, SPNASBackbone):
            return module.architecture.to_dict()
    return {}
