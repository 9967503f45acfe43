"""Everything that Detectron2 has to know: backbones, data sets and ``timm://`` weights."""

from __future__ import annotations

from detectron2.utils.file_io import PathManager

from detection.backbone import (
    SPNASBackbone,
    build_retinanet_spnas_fpn_backbone,
    build_spnas_backbone,
    build_spnas_fpn_backbone,
)
from detection.config import add_spnas_config
from detection.data.builtin import register_digits
from detection.pretrained import TimmWeightsHandler

__all__ = [
    "SPNASBackbone",
    "add_spnas_config",
    "build_retinanet_spnas_fpn_backbone",
    "build_spnas_backbone",
    "build_spnas_fpn_backbone",
]

register_digits()
PathManager.register_handler(TimmWeightsHandler(), allow_override=True)
