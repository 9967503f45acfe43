"""The static networks of a detector: all of it that has weights, and nothing whose size varies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.layers import ROIAlign
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from torch import Tensor, nn

from backbones.errors import UserError


@dataclass(frozen=True)
class StaticNetwork:
    """A network that a format can hold.

    Attributes:
        module: takes one tensor, returns a tuple of tensors.
        input: name of what it takes.
        shape: of one example of that, without the batch; None where it is an image.
        outputs: names of what it returns.
    """

    module: nn.Module
    input: str
    shape: tuple[int, ...] | None
    outputs: tuple[str, ...]


class ImageNetwork(nn.Module):
    """Normalisation, backbone, pyramid, and the heads that look at every place of it.

    Takes images (N, 3, H, W) in [0, 255] of which H and W are multiples of the pyramid's largest
    stride, padded with the mean pixel. Returns scores (N, A·K, H/s, W/s) of all levels, then
    deltas (N, 4·A, H/s, W/s), then the maps (N, C, H/s, W/s) that boxes are pooled from.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone = detector.backbone
        if isinstance(detector, RetinaNet):
            self.head, self.levels = detector.head, list(detector.head_in_features)
            self.pooled: list[str] = []
        else:
            generator = detector.proposal_generator
            self.head, self.levels = generator.rpn_head, list(generator.in_features)
            self.pooled = list(detector.roi_heads.box_in_features)
        self.register_buffer("mean", detector.pixel_mean.clone()[None])
        self.register_buffer("std", detector.pixel_std.clone()[None])

    @property
    def output_names(self) -> tuple[str, ...]:
        """What it returns, in order."""
        scores, deltas = ([f"{kind}_{name}" for name in self.levels] for kind in _DENSE)
        return (*scores, *deltas, *self.pooled)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """In the order of :attr:`output_names`."""
        maps = self.backbone((image - self.mean) / self.std)
        scores, deltas = self.head([maps[name] for name in self.levels])
        return (*scores, *deltas, *(maps[name] for name in self.pooled))


_DENSE = ("scores", "deltas")


class BoxNetwork(nn.Module):
    """Pooled features (N, C, S, S) of boxes → scores (N, K + 1) and deltas (N, 4) or (N, 4·K)."""

    def __init__(self, heads: StandardROIHeads) -> None:
        super().__init__()
        self.head, self.predictor = heads.box_head, heads.box_predictor

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Scores, then deltas."""
        x = self.head(features).flatten(1)
        return self.predictor.cls_score(x), self.predictor.bbox_pred(x)


class MaskNetwork(nn.Module):
    """Pooled features (N, C, S, S) of boxes → logits (N, K, M, M), K = 1 for all classes."""

    def __init__(self, heads: StandardROIHeads) -> None:
        super().__init__()
        self.head = heads.mask_head

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Logits before the sigmoid."""
        return (self.head.layers(features),)


def static_networks(detector: Any, masks: bool = True) -> dict[str, StaticNetwork]:
    """The networks that a detector consists of, in eval mode.

    Args:
        detector: a RetinaNet, or a Faster or Mask R-CNN with a feature pyramid.
        masks: the mask head too, if there is one.

    Returns:
        ``image``, and of an R-CNN ``boxes`` and maybe ``masks``.

    Raises:
        UserError: if the detector has a part that cannot be split so; the message names it.
    """
    check_splittable(detector)
    image = ImageNetwork(detector).eval()
    found = {"image": StaticNetwork(image, "image", None, image.output_names)}
    if isinstance(detector, GeneralizedRCNN):
        heads = detector.roi_heads
        channels = detector.backbone.output_shape()[heads.box_in_features[0]].channels
        found["boxes"] = StaticNetwork(
            BoxNetwork(heads).eval(),
            "features",
            (channels, *heads.box_pooler.output_size),
            _DENSE,
        )
        if masks and heads.mask_on:
            found["masks"] = StaticNetwork(
                MaskNetwork(heads).eval(),
                "features",
                (channels, *heads.mask_pooler.output_size),
                ("masks",),
            )
    return found


def describe(detector: Any, networks: Mapping[str, StaticNetwork]) -> dict[str, Any]:
    """What :mod:`detection.export.postprocess` needs to know of a detector, as plain data.

    All but how images become inputs, and the layout of the files.
    """
    if isinstance(detector, RetinaNet):
        return {
            "kind": "retinanet",
            "levels": _levels(detector.head_in_features, detector),
            "candidates": detector.test_topk_candidates,
            "score_threshold": detector.test_score_thresh,
            "nms": detector.test_nms_thresh,
            "detections": detector.max_detections_per_image,
        }
    generator, heads = detector.proposal_generator, detector.roi_heads
    predictor = heads.box_predictor
    found: dict[str, Any] = {
        "kind": "rcnn",
        "levels": _levels(generator.in_features, generator),
        "proposals": {
            "candidates": generator.pre_nms_topk[False],
            "nms": generator.nms_thresh,
            "count": generator.post_nms_topk[False],
            "smallest": generator.min_box_size,
        },
        "boxes": {
            **_pooling(heads.box_pooler, heads.box_in_features),
            "box_weights": list(predictor.box2box_transform.weights),
            "scale_clamp": predictor.box2box_transform.scale_clamp,
        },
        "score_threshold": predictor.test_score_thresh,
        "nms": predictor.test_nms_thresh,
        # Detectron2's -1 keeps all of them
        "detections": limit if (limit := predictor.test_topk_per_image) >= 0 else None,
    }
    if "masks" in networks:
        pooling = _pooling(heads.mask_pooler, heads.mask_in_features)
        found["masks"] = {**pooling, "threshold": 0.5}
    return found


def _levels(names: list[str], model: Any) -> list[dict[str, Any]]:
    """Of a pyramid with anchors: ``model`` is a RetinaNet or a region proposal network."""
    generator, transform = model.anchor_generator, model.box2box_transform
    return [
        {
            "scores": f"scores_{name}",
            "deltas": f"deltas_{name}",
            "stride": stride,
            "offset": generator.offset,
            "anchors": cells.tolist(),
            "box_weights": list(transform.weights),
            "scale_clamp": transform.scale_clamp,
        }
        for name, stride, cells in zip(
            names, generator.strides, generator.cell_anchors, strict=True
        )
    ]


def _pooling(pooler: ROIPooler, names: list[str]) -> dict[str, Any]:
    first = pooler.level_poolers[0]
    return {
        "features": list(names),
        "strides": [round(1 / level.spatial_scale) for level in pooler.level_poolers],
        "size": pooler.output_size[0],
        "sampling_ratio": max(first.sampling_ratio, 0),
        "aligned": first.aligned,
        "canonical_size": pooler.canonical_box_size,
        "canonical_level": pooler.canonical_level,
    }


def check_splittable(detector: Any) -> None:
    """Insists on a detector that :func:`static_networks` splits.

    Raises:
        UserError: naming the part that is of another kind.
    """
    if isinstance(detector, RetinaNet):
        _check_part(
            "MODEL.ANCHOR_GENERATOR.NAME", detector.anchor_generator, DefaultAnchorGenerator
        )
        return
    _check_part("MODEL.META_ARCHITECTURE", detector, GeneralizedRCNN)
    generator, heads = detector.proposal_generator, detector.roi_heads
    _check_part("MODEL.PROPOSAL_GENERATOR.NAME", generator, RPN)
    _check_part("MODEL.ANCHOR_GENERATOR.NAME", generator.anchor_generator, DefaultAnchorGenerator)
    _check_part("MODEL.ROI_HEADS.NAME", heads, StandardROIHeads)
    _check_part("MODEL.ROI_BOX_HEAD", heads.box_predictor, FastRCNNOutputLayers)
    if getattr(heads.box_predictor, "use_sigmoid_ce", False):
        _refuse("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", "True")
    if heads.keypoint_on:
        _refuse("MODEL.KEYPOINT_ON", "True")
    _check_pooler("MODEL.ROI_BOX_HEAD.POOLER_TYPE", heads.box_pooler)
    if heads.mask_on:
        _check_part("MODEL.ROI_MASK_HEAD.NAME", heads.mask_head, BaseMaskRCNNHead)
        _check_pooler("MODEL.ROI_MASK_HEAD.POOLER_TYPE", heads.mask_pooler)


def _check_part(key: str, part: nn.Module, kind: type[nn.Module]) -> None:
    own = type(part).forward is not kind.forward and kind in _WITH_THEIR_OWN_FORWARD
    if not isinstance(part, kind) or own:
        _refuse(key, type(part).__name__)


_WITH_THEIR_OWN_FORWARD = (GeneralizedRCNN, RPN, StandardROIHeads, FastRCNNOutputLayers)
"""Classes whose subclasses may do other steps, as Cascade R-CNN's heads and panoptic FPN do."""


def _check_pooler(key: str, pooler: Any) -> None:
    first = pooler.level_poolers[0] if isinstance(pooler, ROIPooler) else pooler
    _check_part(key, first, ROIAlign)


def _refuse(key: str, value: str) -> None:
    raise UserError(
        f"{key} is {value}, which cannot be exported; expected a RetinaNet, or a Faster or Mask "
        "R-CNN of StandardROIHeads with ROIAlign: export its backbone alone with --kind backbone"
    )
