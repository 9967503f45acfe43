"""Selection at a target against all networks of a thousand small spaces."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import numpy as np
import pytest
import torch

from backbones import LatencyTable, LayerSpec, UserError
from backbones.latency import Correction, LayerRuntimes, input_sizes
from search.selection.runtime import RuntimeModel
from search.selection.target import runtime_range, select_at_target
from search.space import SearchSpace, Stage
from search.supernets.decisions import Decision

ENOUGH = 1 + 1e-9
"""Factor within which two sums of the same runtimes are equal."""


def small_space(base: SearchSpace, rng: random.Random) -> SearchSpace:
    """At most about a thousand networks; in one space of three, every layer can be skipped."""
    if rng.random() < 1 / 3:
        first = tuple(LayerSpec(32, kernel_size=3, stride=stride) for stride in (1, 2, 2, 2, 2))
        stages = (Stage(32, rng.randint(1, 4), 1),)
    else:
        first = base.first
        stages = tuple(Stage(width, 1 + (rng.random() < 0.3), 2) for width in (24, 40, 80, 192))
    return dataclasses.replace(
        base,
        name="small",
        first=first,
        stages=stages,
        kernel_sizes=(3, 5),
        expansions=rng.choice([(3,), (3, 6)]) if len(stages) == 1 else (6,),
        se_ratios=rng.choice([(0,), (0, 0.25)]) if len(stages) == 1 else (0,),
    )


def made_up_table(space: SearchSpace, table: LatencyTable, rng: random.Random) -> LatencyTable:
    """Whole numbers (many equal sums), or any numbers, on a scale from 1e-6 to 1e6."""
    scale = 10.0 ** rng.randint(-6, 6)
    whole = rng.random() < 0.4
    sizes = input_sizes(space.largest(), (224, 224))[len(space.first) :]

    def cost() -> float:
        return scale * (rng.randint(0, 6) if whole else rng.uniform(0, 5))

    rows = tuple(
        LayerRuntimes(
            layer.in_channels,
            layer.out_channels,
            layer.stride,
            size,
            {space.choice_type(candidate): cost() for candidate in space.candidates},
        )
        for layer, size in zip(space.layers, sizes, strict=False)
    )
    constant = dataclasses.replace(
        table.constant, runtime=scale * rng.choice([1, 0.37, 20]), first=space.first
    )
    return dataclasses.replace(table, name="made-up", layers=rows, constant=constant)


def random_decisions(space: SearchSpace, rng: random.Random) -> list[Decision]:
    def weights(count: int) -> torch.Tensor:
        drawn = torch.tensor([rng.uniform(0.05, 1) for _ in range(count)])
        return drawn / drawn.sum()

    return [
        Decision(
            weights(len(space.kernel_sizes)),
            weights(len(space.expansions)),
            weights(len(space.se_ratios)),
            torch.tensor(rng.uniform(0.02, 0.98) if layer.droppable else 1.0),
        )
        for layer in space.layers
    ]


def all_networks(
    space: SearchSpace, table: LatencyTable, decisions: list[Decision]
) -> tuple[np.ndarray, np.ndarray]:
    """Runtime and log-likelihood of every network, from the table's own entries."""
    costs, values = [], []
    for layer, row, decision in zip(space.layers, table.layers, decisions, strict=True):
        layer_costs, layer_values = [], []
        for choice in space.choices(layer):
            if choice is None:
                layer_costs.append(0.0)
                layer_values.append(math.log(1 - float(decision.keep)))
                continue
            layer_costs.append(row.runtimes[space.choice_type(choice)])
            chosen = (
                decision.keep,
                decision.kernel[choice.kernel],
                decision.expansion[choice.expansion],
                decision.se[choice.se],
            )
            layer_values.append(sum(math.log(float(weight)) for weight in chosen))
        costs.append(layer_costs)
        values.append(layer_values)
    runtimes = [table.constant.runtime + math.fsum(c) for c in itertools.product(*costs)]
    return np.array(runtimes), np.array([math.fsum(v) for v in itertools.product(*values)])


@pytest.mark.parametrize("block", range(10))
def test_selection_is_exact(space: SearchSpace, table: LatencyTable, block: int) -> None:
    """A hundred spaces: random targets, the runtimes of networks, and both edges."""
    for seed in range(100 * block, 100 * (block + 1)):
        rng = random.Random(seed)
        small = small_space(space, rng)
        made_up = made_up_table(small, table, rng)
        model = RuntimeModel(small, made_up)
        decisions = random_decisions(small, rng)
        runtimes, values = all_networks(small, made_up, decisions)
        assert runtime_range(small, model) == pytest.approx((runtimes.min(), runtimes.max()))
        tolerance = rng.choice([0.0, 0.01, 0.1])
        targets = [
            runtimes.min(),
            runtimes.max(),
            float(rng.choice(runtimes)),
            rng.uniform(runtimes.min(), runtimes.max()),
        ]
        for target in targets:
            choices = select_at_target(small, model, decisions, float(target), tolerance)
            index = list(itertools.product(*map(small.choices, small.layers))).index(tuple(choices))
            fast = runtimes <= target * ENOUGH
            band = fast & (runtimes * ENOUGH >= target * (1 - tolerance))
            if not band.any():
                band = fast & (runtimes * ENOUGH >= runtimes[fast].max())
            assert band[index], (seed, target)
            assert values[index] == pytest.approx(values[band].max(), abs=1e-5), (seed, target)


def test_a_table_without_positive_runtimes_is_refused(
    space: SearchSpace, table: LatencyTable
) -> None:
    inverted = Correction(-60.0, 0.76, 1.8, 0.0, {}, 1.0)
    with pytest.raises(UserError, match="expected a runtime above 0: profile the device again"):
        RuntimeModel(space, dataclasses.replace(table, correction=inverted))


def test_merged_states_cost_at_most_their_width(
    space: SearchSpace, table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer states than networks, the best at a slightly lower target is still reached."""
    monkeypatch.setattr("search.selection.target._STATES", 40)
    merged = 0
    for seed in range(200):
        rng = random.Random(seed)
        small = small_space(space, rng)
        made_up = made_up_table(small, table, rng)
        decisions = random_decisions(small, rng)
        runtimes, values = all_networks(small, made_up, decisions)
        merged += len(runtimes) > 40
        target = rng.uniform(runtimes.min(), runtimes.max())
        choices = select_at_target(small, RuntimeModel(small, made_up), decisions, target, 1.0)
        index = list(itertools.product(*map(small.choices, small.layers))).index(tuple(choices))
        lower = target - len(small.layers) / 39 * (target - made_up.constant.runtime)
        assert runtimes[index] <= target * ENOUGH
        reachable = values[runtimes <= lower]
        assert not len(reachable) or values[index] >= reachable.max() - 1e-5
    assert merged > 50
