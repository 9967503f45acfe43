"""Selects the best network under a runtime budget, exactly, by dynamic programming."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backbones.errors import UserError
from search.selection.runtime import RuntimeModel
from search.space import Choice, SearchLayer, SearchSpace
from search.supernets.decisions import LayerDecision

_BINS = 20_000


def runtime_range(space: SearchSpace, runtime_model: RuntimeModel) -> tuple[float, float]:
    """Smallest and largest runtime of the space's networks, in the table's unit."""
    smallest = largest = float(runtime_model.constant)
    for layer, entries in zip(space.layers, runtime_model.entries, strict=True):
        smallest += 0.0 if layer.droppable else float(entries.min())
        largest += float(entries.max())
    return smallest, largest


def check_target(
    space: SearchSpace, runtime_model: RuntimeModel, target: float, key: str = "SEARCH.TARGET"
) -> None:
    """Raises a UserError that names ``key`` if no network of the space has the target runtime."""
    smallest, largest = runtime_range(space, runtime_model)
    if not smallest <= target <= largest:
        table = runtime_model.table
        raise UserError(
            f"{key} is {target:g} {table.unit}; the networks of search space "
            f"'{space.name}' take {smallest:.2f} to {largest:.2f} {table.unit} by latency table "
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
    layers, and so is its runtime: a multiple-choice knapsack, solved exactly by dynamic
    programming over the runtime in steps of target / 20,000.

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
    check_target(space, runtime_model, target)
    values, costs = _tables(space, runtime_model, decisions, selection)
    budget = target - float(runtime_model.constant)
    step = budget / _BINS
    best = torch.full((_BINS + 1,), -torch.inf, dtype=torch.float64)
    best[0] = 0.0
    taken = []
    for layer_values, layer_costs in zip(values, costs, strict=True):
        best, choice = _add_layer(best, layer_values, (layer_costs / step).ceil().long())
        taken.append(choice)
    used = _final_bin(best, int(_BINS * (1 - tolerance * target / budget)))
    choices: list[Choice] = []
    for layer, choice, layer_costs in zip(
        reversed(space.layers), reversed(taken), reversed(costs), strict=True
    ):
        index = int(choice[used])
        choices.append(space.choices(layer)[index])
        used -= int((layer_costs[index] / step).ceil())
    return choices[::-1]


def _tables(
    space: SearchSpace,
    runtime_model: RuntimeModel,
    decisions: Sequence[LayerDecision],
    selection: str,
) -> tuple[list[Tensor], list[Tensor]]:
    """Value and runtime of every choice of every layer."""
    values, costs = [], []
    for index, (layer, decision) in enumerate(zip(space.layers, decisions, strict=True)):
        values.append(VALUES[selection](decision, space, layer).detach().double().cpu())
        costs.append(torch.tensor(runtime_model.choice_runtimes(index), dtype=torch.float64))
    return values, costs


def _add_layer(best: Tensor, values: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
    """Best value for every total cost once a layer is added, and the choice that gives it."""
    options = torch.full((len(values), len(best)), -torch.inf, dtype=best.dtype)
    for index, (value, cost) in enumerate(zip(values.tolist(), costs.tolist(), strict=True)):
        if cost < len(best):
            options[index, cost:] = best[: len(best) - cost] + value
    return options.max(0)


def _final_bin(best: Tensor, lowest: int) -> int:
    """The best total cost at or above ``lowest``, else the highest that is reachable."""
    lowest = max(lowest, 0)
    if best[lowest:].isfinite().any():
        return lowest + int(best[lowest:].argmax())
    reachable = best.isfinite().nonzero()
    if not len(reachable):
        raise UserError("no network of the space fits the target; raise SEARCH.TARGET")
    return int(reachable[-1])
