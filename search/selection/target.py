"""Selects the best network under a runtime budget, exactly, by dynamic programming."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backbones.errors import UserError
from search.selection.runtime import RuntimeModel
from search.space import Choice, SearchLayer, SearchSpace
from search.supernets.decisions import LayerDecision

_STATES = 50_000
"""Partial networks kept while layers are added; a space with no more is searched exhaustively."""

ROUNDING = 1e-9
"""Relative difference below which runtimes are equal: sums in another order differ by less."""


def runtime_range(space: SearchSpace, runtime_model: RuntimeModel) -> tuple[float, float]:
    """Smallest and largest runtime of the space's networks, in the table's unit."""
    rows = [runtime_model.choice_runtimes(index) for index in range(len(space.layers))]
    fixed = runtime_model.fixed_runtime
    return fixed + sum(map(min, rows)), fixed + sum(map(max, rows))


def check_target(
    space: SearchSpace, runtime_model: RuntimeModel, target: float, key: str = "SEARCH.TARGET"
) -> None:
    """Raises a UserError that names ``key`` if no network of the space has the target runtime."""
    smallest, largest = runtime_range(space, runtime_model)
    if not smallest * (1 - ROUNDING) <= target <= largest * (1 + ROUNDING):
        table = runtime_model.table
        raise UserError(
            f"{key} is {target:g} {table.unit}; the networks of search space "
            f"'{space.name}' take {smallest:.4g} to {largest:.4g} {table.unit} by latency table "
            f"'{table.name}'"
        )


VALUES: dict[str, Callable[[LayerDecision, SearchSpace, SearchLayer], Tensor]] = {
    "log_odds": lambda decision, space, layer: decision.log_odds(space, layer),
    "likelihood": lambda decision, space, layer: decision.log_weights(space, layer),
}
"""What a choice is worth, by the name that ``SEARCH.SELECTION`` uses."""


def select_at_target(
    space: SearchSpace,
    runtime_model: RuntimeModel,
    decisions: Sequence[LayerDecision],
    target: float,
    tolerance: float = 0.01,
    selection: str = "likelihood",
) -> list[Choice]:
    """The most valuable network whose runtime is at most the target, and close to it.

    With every option's weight read as its probability, the value of a network is a sum over
    layers, and so is its runtime: a multiple-choice knapsack. Layers are added one by one to all
    partial networks that can still end at the target, each with its own exact runtime. Where there
    are too many, those of (nearly) the same runtime are represented by the most valuable one: the
    network found is then at least as valuable as the best at a target lower by
    layers / ``_STATES``.

    Args:
        space: the search space.
        runtime_model: predicts every layer's candidates.
        decisions: relaxed, one per searchable layer.
        target: in the unit of the latency table.
        tolerance: the runtime is between ``target · (1 - tolerance)`` and ``target``, or the
            closest below where the space has nothing there.
        selection: one of ``VALUES``.

    Returns:
        One choice per searchable layer.

    Raises:
        UserError: if the selection is unknown, or the space has no network at or below the target.
    """
    if selection not in VALUES:
        raise UserError(
            f"unknown SEARCH.SELECTION '{selection}'; expected one of {', '.join(VALUES)}"
        )
    values = [
        VALUES[selection](decision, space, layer)
        for layer, decision in zip(space.layers, decisions, strict=True)
    ]
    return select_by_value(space, runtime_model, values, target, tolerance)


def select_by_value(
    space: SearchSpace,
    runtime_model: RuntimeModel,
    layer_values: Sequence[Tensor],
    target: float,
    tolerance: float = 0.01,
) -> list[Choice]:
    """As :func:`select_at_target`, for values of any kind.

    Args:
        space: the search space.
        runtime_model: predicts every layer's candidates.
        layer_values: what every choice of a layer is worth, in the order of ``space.choices``; the
            value of a network is their sum.
        target: in the unit of the latency table.
        tolerance: as there.

    Raises:
        UserError: if the space has no network at or below the target.
    """
    check_target(space, runtime_model, target)
    rows = [row.detach().double().cpu() for row in layer_values]
    costs = [
        torch.tensor(runtime_model.choice_runtimes(index), dtype=torch.float64)
        for index in range(len(space.layers))
    ]
    budget = target * (1 + ROUNDING) - runtime_model.fixed_runtime
    total_cost = total_value = torch.zeros(1, dtype=torch.float64)
    steps = []
    for index, (layer_value, layer_costs) in enumerate(zip(rows, costs, strict=True)):
        rest = sum(float(later.min()) for later in costs[index + 1 :])
        grown_cost = (total_cost[:, None] + layer_costs).flatten()
        grown_value = (total_value[:, None] + layer_value).flatten()
        kept = (grown_cost <= budget - rest).nonzero().flatten()
        kept = _thinned(kept, grown_cost, grown_value)
        total_cost, total_value = grown_cost[kept], grown_value[kept]
        steps.append((kept // len(layer_costs), kept % len(layer_costs)))
    lowest = target * (1 - tolerance - ROUNDING) - runtime_model.fixed_runtime
    state = _best_state(total_cost, total_value, lowest, target * ROUNDING)
    choices: list[Choice] = []
    for layer, (parents, picks) in zip(reversed(space.layers), reversed(steps), strict=True):
        choices.append(space.choices(layer)[int(picks[state])])
        state = int(parents[state])
    return choices[::-1]


def _thinned(kept: Tensor, cost: Tensor, value: Tensor) -> Tensor:
    """The most valuable state of each of ``_STATES`` equal bins of cost.

    Args:
        kept: (n,) indices of the states; returned as they are where they are few enough.
        cost: of every state.
        value: of every state.
    """
    if len(kept) <= _STATES:
        return kept
    costs, values = cost[kept], value[kept]
    lowest, highest = costs.min(), costs.max()
    width = (highest - lowest) / (_STATES - 1)
    group = ((costs - lowest) / width).long() if width > 0 else torch.zeros_like(kept)
    best = torch.full((_STATES,), -torch.inf, dtype=values.dtype)
    best.scatter_reduce_(0, group, values, "amax")
    winners = (values == best[group]).nonzero().flatten()
    first = torch.full((_STATES,), len(kept)).scatter_reduce_(0, group[winners], winners, "amin")
    return kept[first[first < len(kept)]]


def _best_state(cost: Tensor, value: Tensor, lowest: float, rounding: float) -> int:
    """The most valuable state of at least the lowest cost, else of the highest cost there is."""
    enough = cost >= min(lowest, float(cost.max()) - rounding)
    return int(value.where(enough, -torch.inf).argmax())
