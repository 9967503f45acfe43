"""Runtimes on a device: tables of layers, and the prediction for whole networks."""

from backbones.latency.correction import Correction, LeastCosts
from backbones.latency.prediction import (
    input_sizes,
    layer_runtimes,
    not_covered,
    predict_runtime,
)
from backbones.latency.table import ConstantPart, LatencyTable, LayerRuntimes

__all__ = [
    "ConstantPart",
    "Correction",
    "LatencyTable",
    "LayerRuntimes",
    "LeastCosts",
    "input_sizes",
    "layer_runtimes",
    "not_covered",
    "predict_runtime",
]
