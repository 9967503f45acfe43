"""Everything that Detectron2 has to know: backbones, data sets and published weights."""

from __future__ import annotations

from detectron2.utils.file_io import PathManager

import detection.backbone  # noqa: F401  registers the backbones
from detection.data.builtin import register_digits
from detection.pretrained import PublishedWeightsHandler

register_digits()
PathManager.register_handler(PublishedWeightsHandler(), allow_override=True)
