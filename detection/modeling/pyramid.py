"""Feature pyramids over the backbones, for Mask R-CNN and for RetinaNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7

from backbones.errors import UserError
from detection.modeling.backbone import DEFAULT_FEATURES, NamedBackbone, build_spnas_backbone
from detection.modeling.heads.lite import lighten_pyramid

PyramidBuilder = Callable[[CfgNode, ShapeSpec], FPN]


def spnas_fpn(
    bottom_up: NamedBackbone,
    in_features: Sequence[str] = DEFAULT_FEATURES,
    out_channels: int = 256,
    norm: str = "",
    fuse_type: str = "sum",
    retinanet: bool = False,
    lite: bool = False,
) -> FPN:
    """A feature pyramid over the backbone.

    Args:
        bottom_up: the backbone.
        in_features: its maps to use, contiguous.
        out_channels: of every level.
        norm: of the pyramid's convolutions.
        fuse_type: ``sum`` or ``avg``.
        retinanet: add P6 and P7, convolved from ``res5``; otherwise P6, pooled from P5.
        lite: depthwise separable convolutions instead of 3×3 ones.

    Raises:
        UserError: if the backbone does not return the maps.
    """
    shapes = bottom_up.output_shape()
    needed = (*in_features, "res5") if retinanet else in_features
    if missing := [name for name in needed if name not in shapes]:
        raise UserError(
            f"the feature pyramid needs '{missing[0]}', but {bottom_up.config_key}.OUT_FEATURES "
            f"is {list(shapes)}; add it there or change MODEL.FPN.IN_FEATURES"
        )
    top_block = (
        LastLevelP6P7(shapes["res5"].channels, out_channels) if retinanet else LastLevelMaxPool()
    )
    fpn = FPN(bottom_up, list(in_features), out_channels, norm, top_block, fuse_type)
    if lite:
        lighten_pyramid(fpn)
    return fpn


def fpn_from_cfg(cfg: CfgNode, bottom_up: NamedBackbone, retinanet: bool) -> FPN:
    """The feature pyramid that ``cfg.MODEL.FPN`` describes, over a backbone."""
    return spnas_fpn(
        bottom_up,
        cfg.MODEL.FPN.IN_FEATURES,
        cfg.MODEL.FPN.OUT_CHANNELS,
        cfg.MODEL.FPN.NORM,
        cfg.MODEL.FPN.FUSE_TYPE,
        retinanet,
        cfg.MODEL.FPN.LITE,
    )


def pyramid_builders(name: str) -> tuple[str, str]:
    """What ``MODEL.BACKBONE.NAME`` calls the pyramids over a backbone, Mask R-CNN's first."""
    return f"build_{name}_fpn_backbone", f"build_retinanet_{name}_fpn_backbone"


def is_built_by(name: str, builder: str) -> bool:
    """Whether a builder in ``MODEL.BACKBONE.NAME`` is of the backbone ``name``, pyramid or not."""
    return builder in (f"build_{name}_backbone", *pyramid_builders(name))


def register_pyramids(
    name: str, build_bottom_up: Callable[[CfgNode, ShapeSpec], NamedBackbone]
) -> tuple[PyramidBuilder, PyramidBuilder]:
    """Registers both pyramids over a backbone with Detectron2.

    Args:
        name: of the backbone in the names of :func:`pyramid_builders`.
        build_bottom_up: builds it.

    Returns:
        The builders registered, in the order of their names.
    """

    def for_rcnn(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
        """Backbone and feature pyramid with a pooled P6, for Faster and Mask R-CNN."""
        return fpn_from_cfg(cfg, build_bottom_up(cfg, input_shape), retinanet=False)

    def for_retinanet(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
        """Backbone and feature pyramid with P6 and P7, for RetinaNet."""
        return fpn_from_cfg(cfg, build_bottom_up(cfg, input_shape), retinanet=True)

    for builder, registered in zip((for_rcnn, for_retinanet), pyramid_builders(name), strict=True):
        builder.__name__ = builder.__qualname__ = registered
        BACKBONE_REGISTRY.register(builder)
    return for_rcnn, for_retinanet


build_spnas_fpn_backbone, build_retinanet_spnas_fpn_backbone = register_pyramids(
    "spnas", build_spnas_backbone
)
