"""Timm's networks in Detectron2's registry; timm itself is imported when one is built.

Its import takes longer than all of Detectron2's.
"""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN

from detection.modeling.backbone import NamedBackbone, backbone_options, fpn_from_cfg

logger = logging.getLogger(__name__)


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> NamedBackbone:
    """The `TimmBackbone` that ``cfg.MODEL.TIMM`` describes."""
    from detection.modeling.timm_backbone import TimmBackbone, check_normalisation

    options = backbone_options(cfg, input_shape, TimmBackbone.config_key)
    backbone = TimmBackbone(
        options.NAME,
        options.PRETRAINED,
        options.NORM,
        options.OUT_FEATURES,
        cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    if options.PRETRAINED:
        check_normalisation(cfg)
    elif not cfg.MODEL.WEIGHTS:
        logger.warning(
            "MODEL.TIMM.PRETRAINED is False and MODEL.WEIGHTS empty: '%s' starts from random "
            "weights, those of its frozen norms included",
            backbone.name,
        )
    return backbone


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Backbone and feature pyramid with a pooled P6, for Faster and Mask R-CNN."""
    return fpn_from_cfg(cfg, build_timm_backbone(cfg, input_shape), retinanet=False)


@BACKBONE_REGISTRY.register()
def build_retinanet_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Backbone and feature pyramid with P6 and P7, for RetinaNet."""
    return fpn_from_cfg(cfg, build_timm_backbone(cfg, input_shape), retinanet=True)
