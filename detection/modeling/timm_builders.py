"""Timm's networks in Detectron2's registry; timm itself is imported when one is built.

Its import takes longer than all of Detectron2's.
"""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

from detection.modeling.backbone import NamedBackbone, backbone_config
from detection.modeling.pyramid import register_pyramids

logger = logging.getLogger(__name__)


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> NamedBackbone:
    """The `TimmBackbone` that ``cfg.MODEL.TIMM`` describes."""
    from detection.modeling.timm_backbone import TimmBackbone, check_normalisation

    node = backbone_config(cfg, input_shape, TimmBackbone.config_key)
    backbone = TimmBackbone(
        node.NAME,
        node.PRETRAINED,
        node.NORM,
        node.OUT_FEATURES,
        cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    if node.PRETRAINED:
        check_normalisation(cfg)
    elif not cfg.MODEL.WEIGHTS:
        logger.warning(
            "MODEL.TIMM.PRETRAINED is False and MODEL.WEIGHTS empty: '%s' starts from random "
            "weights, those of its frozen norms included",
            backbone.name,
        )
    return backbone


register_pyramids("timm", build_timm_backbone)
