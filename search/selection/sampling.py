"""Draws random networks: uniformly at a target runtime, or from a supernet's decisions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from backbones.errors import UserError
from search.selection.runtime import RuntimeModel
from search.selection.target import ROUNDING, check_target
from search.space import Choice, SearchSpace
from search.supernets.decisions import LayerDecision

_ATTEMPTS = 100_000


def sample_at_target(
    space: SearchSpace,
    runtime_model: RuntimeModel,
    target: float,
    rng: random.Random,
    tolerance: float = 0.01,
) -> list[Choice]:
    """A network drawn uniformly among those whose runtime is within the tolerance below the target.

    Plain rejection (Sec. VII-A) hardly ever hits a target far from the mean of the space. Here
    every choice is drawn with a weight of exp(β · runtime), β such that the mean is in the middle
    of the band. The weight of a network then depends on its runtime alone, which a second
    rejection within the band takes out again.

    Args:
        space: the search space.
        runtime_model: predicts every layer's candidates.
        target: in the unit of the latency table.
        rng: of the draw.
        tolerance: the runtime is between ``target · (1 - tolerance)`` and ``target``.

    Raises:
        UserError: if the space has no network there, or none was found.
    """
    check_target(space, runtime_model, target)
    runtimes = [runtime_model.choice_runtimes(index) for index in range(len(space.layers))]
    constant = runtime_model.fixed_runtime
    lowest = target * (1 - tolerance)
    beta, weights = _tilted(runtimes, (target + lowest) / 2 - constant)
    lightest = lowest if beta > 0 else target
    for _ in range(_ATTEMPTS):
        picks = [
            rng.choices(range(len(row)), layer_weights)[0]
            for row, layer_weights in zip(runtimes, weights, strict=True)
        ]
        total = constant + sum(row[pick] for row, pick in zip(runtimes, picks, strict=True))
        if not lowest * (1 - ROUNDING) <= total <= target * (1 + ROUNDING):
            continue
        if rng.random() < math.exp(beta * (lightest - total)):
            return [
                space.choices(layer)[pick] for layer, pick in zip(space.layers, picks, strict=True)
            ]
    raise UserError(
        f"no random network of search space '{space.name}' between {lowest:.4g} and {target:.4g} "
        f"{runtime_model.table.unit} in {_ATTEMPTS} draws; widen the tolerance"
    )


def sample_decisions(
    space: SearchSpace, decisions: Sequence[LayerDecision], rng: random.Random
) -> list[Choice]:
    """A network drawn from the distribution that relaxed decisions stand for.

    Args:
        space: the search space.
        decisions: one per searchable layer.
        rng: of the draw.
    """
    drawn = []
    for layer, decision in zip(space.layers, decisions, strict=True):
        weights = decision.log_weights(space, layer).exp().tolist()
        drawn.append(rng.choices(space.choices(layer), weights)[0])
    return drawn


def _tilted(runtimes: list[list[float]], mean: float) -> tuple[float, list[list[float]]]:
    """The β that makes ``mean`` the mean sum, and the weights of every layer's choices."""
    rows = [torch.tensor(row, dtype=torch.float64) for row in runtimes]

    def probabilities(beta: float) -> list[Tensor]:
        return [(beta * row).softmax(0) for row in rows]

    scale = 1 / max(float(row.max()) for row in rows)
    low, high = -1e4 * scale, 1e4 * scale
    for _ in range(60):
        beta = (low + high) / 2
        expected = sum(float(p @ row) for p, row in zip(probabilities(beta), rows, strict=True))
        low, high = (beta, high) if expected < mean else (low, beta)
    return low, [p.tolist() for p in probabilities(low)]
