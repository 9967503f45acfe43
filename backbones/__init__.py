"""What a backbone is: architectures as data, their networks, and what they cost on a device."""

from backbones.architecture import Architecture, HeadSpec, LayerSpec, StemSpec
from backbones.conversion import convert_weights
from backbones.errors import UserError
from backbones.factory import create_model, list_models, load_architecture
from backbones.latency import LatencyTable, predict_runtime
from backbones.network import Classifier, FeatureExtractor, build_classifier
from backbones.zoo import list_published

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
    "list_models",
    "list_published",
    "load_architecture",
    "predict_runtime",
]
