"""Everything that Detectron2 has to know: backbones, heads, data sets and published weights."""

from __future__ import annotations

import importlib
import pkgutil

from detectron2.utils.file_io import PathManager

import detection.modeling.heads
import detection.modeling.pyramid
import detection.modeling.timm_builders
from detection.data.builtin import register_digits
from detection.modeling.pretrained import PublishedWeightsHandler

# backbones are registered by their import, and so are heads
for _module in pkgutil.iter_modules(detection.modeling.heads.__path__):
    importlib.import_module(f"{detection.modeling.heads.__name__}.{_module.name}")
register_digits()
PathManager.register_handler(PublishedWeightsHandler(), allow_override=True)
