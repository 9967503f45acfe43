"""What a backbone is: architectures as data, their networks, and what they cost on a device.

A name below is imported when it is asked for: without a network there is no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "Architecture",
    "Classifier",
    "FeatureExtractor",
    "HeadSpec",
    "LatencyTable",
    "LayerSpec",
    "StemSpec",
    "UserError",
    "build_classifier",
    "convert_weights",
    "create_model",
    "from_pretrained",
    "list_models",
    "list_published",
    "load_architecture",
    "predict_runtime",
]

_HOMES = {
    "architecture": ("Architecture", "HeadSpec", "LayerSpec", "StemSpec"),
    "conversion": ("convert_weights",),
    "errors": ("UserError",),
    "factory": ("create_model", "from_pretrained", "list_models", "load_architecture"),
    "latency": ("LatencyTable", "predict_runtime"),
    "network": ("Classifier", "FeatureExtractor", "build_classifier"),
    "zoo": ("list_published",),
}
"""The module that each name comes from."""

if TYPE_CHECKING:
    from backbones.architecture import Architecture, HeadSpec, LayerSpec, StemSpec
    from backbones.conversion import convert_weights
    from backbones.errors import UserError
    from backbones.factory import create_model, from_pretrained, list_models, load_architecture
    from backbones.latency import LatencyTable, predict_runtime
    from backbones.network import Classifier, FeatureExtractor, build_classifier
    from backbones.zoo import list_published
else:

    def __getattr__(name: str) -> object:
        for module, names in _HOMES.items():
            if name in names:
                value = getattr(import_module(f"backbones.{module}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module 'backbones' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
