"""Everything that Detectron2 has to know: backbones, data sets and ``timm://`` weights."""

from __future__ import annotations

from detectron2.utils.file_io import PathManager

import detection.backbone  # noqa: F401  registers the backbones
from detection.data.builtin import register_digits
from detection.pretrained import TimmWeightsHandler

register_digits()
PathManager.register_handler(TimmWeightsHandler(), allow_override=True)
