"""Everything that Detectron2 has to know: backbones, data sets and published weights."""

from __future__ import annotations

from detectron2.utils.file_io import PathManager

import detection.modeling.backbone
import detection.modeling.heads.lite
import detection.modeling.timm_builders  # noqa: F401  they register backbones and heads
from detection.data.builtin import register_digits
from detection.modeling.pretrained import PublishedWeightsHandler

register_digits()
PathManager.register_handler(PublishedWeightsHandler(), allow_override=True)
