"""Linear correction from the sum of separately measured layers to whole networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from backbones.latency import Correction
from backbones.layer_types import SKIP, LayerType

Features = NDArray[np.floating]


def network_features(
    types: Sequence[LayerType], layers: Sequence[float], constant: float
) -> list[float]:
    """What the correction sees of a network: ``[1, sum, layers not skipped, layers with SE]``.

    Args:
        types: of its searchable layers.
        layers: runtime of every layer alone; 0 of a skipped one.
        constant: runtime of the parts that are not searched.
    """
    kept = sum(layer_type != SKIP for layer_type in types)
    with_se = sum(layer_type.has_se for layer_type in types)
    return [1.0, constant + sum(layers), float(kept), float(with_se)]


def fit_correction(
    features: Mapping[str, Sequence[float]], measured: Sequence[float]
) -> Correction:
    """Least squares of the relative error.

    Args:
        features: of every network, by its types (:func:`network_features`).
        measured: runtime of every whole network, in the same order.
    """
    matrix = np.array(list(features.values()), dtype=np.float64)
    target = np.array(measured, dtype=np.float64)
    intercept, scale, per_layer, per_se = map(float, _solve(matrix, target))
    networks = {types: round(runtime, 4) for types, runtime in zip(features, measured, strict=True)}
    error = _held_out_error(matrix, target)
    return Correction(intercept, scale, per_layer, per_se, networks, error)


def _solve(features: Features, measured: Features) -> Features:
    """Coefficients; where the networks do not tell two apart, the smallest ones."""
    relative = features / measured[:, None]
    return np.asarray(np.linalg.lstsq(relative, np.ones(len(measured)), rcond=None)[0])


def _held_out_error(features: Features, measured: Features) -> float:
    """Mean absolute error in percent, every network predicted by a fit to the others."""
    errors = []
    for index in range(len(measured)):
        others = np.arange(len(measured)) != index
        predicted = features[index] @ _solve(features[others], measured[others])
        errors.append(abs(predicted / measured[index] - 1))
    return float(100 * np.mean(errors))
