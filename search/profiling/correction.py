"""Linear correction from the sum of separately measured layers to whole networks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import spearmanr

from backbones.latency import Correction, LeastCosts
from backbones.layer_types import SKIP, LayerType

logger = logging.getLogger(__name__)

Features = NDArray[np.floating]

FEWEST_NETWORKS = 8
"""Networks that a correction is fitted on: two for each of its coefficients, or more."""

RANK_ROOM = 0.01
"""Loss of Spearman's ρ that is none: some tens of networks do not tell less."""


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


@dataclass(frozen=True)
class Agreement:
    """How well predictions of networks agree with their measured runtimes.

    Attributes:
        error: mean absolute error in percent.
        rank: Spearman's ρ; 0 where all predictions, or all runtimes, are the same.
    """

    error: float
    rank: float

    @classmethod
    def of(cls, predicted: Features, measured: Features) -> Agreement:
        """Of the predictions, with the runtimes in the same order."""
        ranked = np.ptp(predicted) > 0 and np.ptp(measured) > 0
        rank = float(spearmanr(predicted, measured)[0]) if ranked else 0.0
        return cls(float(100 * np.mean(np.abs(predicted / measured - 1))), rank)


def fit_correction(
    features: Mapping[str, Sequence[float]], measured: Sequence[float], least: LeastCosts
) -> tuple[Correction | None, str]:
    """Least squares of the relative error, among the corrections that turn no order round.

    It is taken where it predicts networks that are left out of the fit better than the plain sum:
    with a smaller error, and in no worse an order.

    Args:
        features: of every network, by its types (:func:`network_features`).
        measured: runtime of every whole network, in the same order.
        least: smallest costs of the table.

    Returns:
        The correction, or None with why it is not taken.
    """
    if len(measured) < FEWEST_NETWORKS:
        return None, f"fitted on {len(measured)} networks, where it takes {FEWEST_NETWORKS} or more"
    matrix = np.array(list(features.values()), dtype=np.float64)
    target = np.array(measured, dtype=np.float64)
    held_out = Agreement.of(_held_out_predictions(matrix, target, least), target)
    plain = Agreement.of(matrix[:, 1], target)
    intercept, scale, per_layer, per_se = map(float, _solve(matrix, target, least))
    networks = {types: round(runtime, 4) for types, runtime in zip(features, measured, strict=True)}
    fit = Correction(intercept, scale, per_layer, per_se, networks, held_out.error)
    logger.info(
        "Correction from %d networks: %.3f ms + %.3f × sum + %.4f ms per layer + %.4f ms per SE "
        "layer; on networks left out of the fit mean error %.2f %% and ρ %.3f, of the plain sum "
        "%.2f %% and %.3f",
        *(len(measured), intercept, scale, per_layer, per_se),
        *(held_out.error, held_out.rank, plain.error, plain.rank),
    )
    refused = fit.turns_round(least) or _no_better(held_out, plain)
    return (None, refused) if refused else (fit, "")


def _no_better(held_out: Agreement, plain: Agreement) -> str:
    """Why a correction predicts no better than the plain sum; empty where it does."""
    if held_out.error >= plain.error:
        return (
            f"on networks left out of the fit it errs by {held_out.error:.3g} %, and the plain sum "
            f"by {plain.error:.3g} %"
        )
    if held_out.rank < plain.rank - RANK_ROOM:
        return (
            f"it ranks networks left out of the fit worse (ρ {held_out.rank:.3f}) than the plain "
            f"sum does (ρ {plain.rank:.3f})"
        )
    return ""


def _solve(features: Features, measured: Features, least: LeastCosts) -> Features:
    """Coefficients of the best correction under which nothing smaller counts as slower.

    What may not be negative are the slope, the time of the parts that are not searched, of the
    fastest layer, and of SE where it adds least. The runtime is linear in these four as well, so
    they are found by non-negative least squares.
    """
    constant, total, layers, with_se = features.T
    rest = total - least.constant * constant - least.layer * layers - least.se * with_se
    columns = np.stack([constant, rest, layers, with_se], axis=1) / measured[:, None]
    fixed, scale, layer, se = nnls(columns, np.ones(len(measured)))[0]
    offsets = scale * np.array([least.constant, 0, least.layer, least.se])
    return np.array([fixed, scale, layer, se]) - offsets


def _held_out_predictions(features: Features, measured: Features, least: LeastCosts) -> Features:
    """Every network predicted by a fit to the others."""
    predicted = []
    for index in range(len(measured)):
        others = np.arange(len(measured)) != index
        predicted.append(features[index] @ _solve(features[others], measured[others], least))
    return np.array(predicted)
