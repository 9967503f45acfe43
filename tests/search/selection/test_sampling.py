"""Random networks at a target: within the band, and uniform there."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter

import pytest
import torch

from backbones import LatencyTable, UserError, predict_runtime
from search.selection.runtime import RuntimeModel
from search.selection.sampling import sample_at_target, sample_decisions
from search.space import SearchSpace, Stage
from search.supernets.decisions import Decision


@pytest.mark.parametrize("target", [45.0, 66.0, 106.0, 125.0])
def test_full_space(
    space: SearchSpace, table: LatencyTable, rng: random.Random, target: float
) -> None:
    model = RuntimeModel(space, table)
    for _ in range(5):
        choices = sample_at_target(space, model, target, rng)
        runtime = predict_runtime(space.architecture(choices, "random"), table)
        assert 0.99 * target <= runtime <= target * (1 + 1e-6)


@pytest.mark.parametrize(("target", "tolerance"), [(44.0, 0.02), (34.0, 0.05)])
def test_uniform_within_the_band(
    space: SearchSpace, table: LatencyTable, target: float, tolerance: float
) -> None:
    """Every network of a small space in the band is drawn about equally often (chi-squared).

    The targets are on both sides of the space's mean, 38 ms.
    """
    small = dataclasses.replace(
        space,
        stages=tuple(Stage(s.out_channels, 1, s.stride) for s in space.stages),
        se_ratios=(0,),
    )
    rows = tuple(table.layers[index] for index in (0, 4, 8, 12, 16))
    model = RuntimeModel(small, dataclasses.replace(table, layers=rows))
    inside = {
        tuple(map(small.choice_type, choices))
        for choices in itertools.product(*map(small.choices, small.layers))
        if target * (1 - tolerance)
        <= predict_runtime(small.architecture(list(choices), "x"), model.table)
        <= target
    }
    assert len(inside) > 20
    rng = random.Random(0)
    draws = 40 * len(inside)
    counts = Counter(
        tuple(map(small.choice_type, sample_at_target(small, model, target, rng, tolerance)))
        for _ in range(draws)
    )
    assert set(counts) <= inside
    expected = draws / len(inside)
    statistic = sum((counts[name] - expected) ** 2 / expected for name in inside)
    freedom = len(inside) - 1
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def test_a_target_that_the_space_lacks(
    space: SearchSpace, table: LatencyTable, rng: random.Random
) -> None:
    model = RuntimeModel(space, table)
    with pytest.raises(UserError, match="take 30.63 to 131.5 ms"):
        sample_at_target(space, model, 20.0, rng)
    with pytest.raises(UserError, match="widen the tolerance"):
        sample_at_target(space, model, 131.4, rng, tolerance=1e-9)


def test_sampling_follows_the_decisions(space: SearchSpace) -> None:
    decision = Decision(
        torch.tensor([0.25, 0.75]),
        torch.tensor([1.0, 0.0]),
        torch.tensor([0.5, 0.0, 0.5]),
        torch.tensor(0.8),
    )
    rng = random.Random(0)
    drawn = [sample_decisions(space, [decision] * 20, rng) for _ in range(300)]
    droppable = [index for index, layer in enumerate(space.layers) if layer.droppable]
    kept = [choices[index] for choices in drawn for index in droppable]
    assert sum(choice is None for choice in kept) / len(kept) == pytest.approx(0.2, abs=0.02)
    used = [choice for choice in kept if choice]
    assert sum(choice.kernel for choice in used) / len(used) == pytest.approx(0.75, abs=0.02)
    assert {choice.expansion for choice in used} == {0}
    assert {choice.se for choice in used} == {0, 2}
    assert all(choices[0] is not None for choices in drawn)
