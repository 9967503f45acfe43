"""What a backbone is: architectures as data, their networks, and what they cost on a device."""

from backbones.architecture import Architecture, HeadSpec, LayerSpec, StemSpec
from backbones.errors import UserError
from backbones.factory import create_model, list_models, load_architecture
from backbones.latency import LatencyTable, predict_runtime
from backbones.network import Classifier, FeatureExtractor, build_classifier
from backbones.weights import from_timm

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
    "create_model",
    "from_timm",
    "list_models",
    "load_architecture",
    "predict_runtime",
]
