"""Thresholds of a search that starts at a network: where they begin, and how they move."""

from __future__ import annotations

import random

import pytest
import torch

from search.space import Candidate, Choice, SearchSpace
from search.supernets.single_path import Supernet
from search.supernets.thresholds import IMPORTANCES
from tests.search.conftest import nested_weights


@pytest.mark.parametrize("importance", [name for name in IMPORTANCES if name != "literal"])
def test_they_begin_at_a_network(space: SearchSpace, rng: random.Random, importance: str) -> None:
    """Whatever the importance, every decision is as far from its threshold as it was told to be."""
    if IMPORTANCES[importance].start != "below":
        pytest.skip("begins undecided")
    supernet = Supernet(space, 2, importance=importance, importance_floor=0.1)
    for _ in range(5):
        wanted = space.sample(rng)
        supernet.reset_thresholds(wanted)
        assert supernet.choices() == wanted
        expected = 4 * supernet.thresholds.gates_of(wanted) - 2  # 2 temperatures above or below
        torch.testing.assert_close(supernet.logits(), expected, atol=1e-3, rtol=0)
    supernet.reset_thresholds()
    assert supernet.choices() == [space.candidates[-1]] * len(space.layers)


def test_indicators_of_a_choice(wide_space: SearchSpace) -> None:
    """Decided by them, a layer takes that choice: the inverse of a decision's ``choice``."""
    thresholds = Supernet(wide_space, 2).thresholds
    for index, layer in enumerate(wide_space.layers):
        for choice in wide_space.choices(layer):
            choices = [wide_space.candidates[3], wide_space.candidates[5]]
            choices[index] = choice
            (decisions,) = thresholds.decisions(thresholds.gates_of(choices))
            assert [decision.choice() for decision in decisions] == choices
    assert thresholds.gates_of([Candidate(1, 2, 0)]).tolist() == [[1, 0, 1, 1, 0, 0, 1]]
    assert thresholds.gates_of([None]).tolist() == [[0] * 7]


def test_decisions_are_products_of_indicators(wide_space: SearchSpace) -> None:
    """Of several sets at once; a layer that cannot be skipped is kept whatever its row says."""
    torch.manual_seed(0)
    thresholds = Supernet(wide_space, 2).thresholds
    gates = torch.rand(2, 2, 7)
    for rows, decisions in zip(gates, thresholds.decisions(*gates), strict=True):
        for row, decision, layer in zip(rows, decisions, wide_space.layers, strict=True):
            kernel, expansion, se = row[:6].split(2)
            torch.testing.assert_close(decision.kernel, nested_weights(kernel))
            torch.testing.assert_close(decision.expansion, nested_weights(expansion))
            torch.testing.assert_close(decision.se, nested_weights(se))
            assert float(decision.keep) == (float(row[6]) if layer.droppable else 1.0)


@pytest.mark.parametrize(("floor", "low", "high"), [(0.1, 0.0, 0.1), (0.0, 1.0, 100.0)])
def test_a_ring_of_zeros_that_begins_to_grow(
    space: SearchSpace, floor: float, low: float, high: float
) -> None:
    """By a twentieth of what the core has: with a floor, the decision is not made by that."""
    supernet = Supernet(space, 2, importance_floor=floor)
    layer = supernet.superkernels[0]
    weight = layer.depthwise.conv.weight
    ring = layer.kernel_rings[1].bool()
    with torch.no_grad():
        weight[..., ring] = 0
        start: list[Choice] = [Candidate(0, 1, 0)] * len(space.layers)
        supernet.reset_thresholds(start)
        before = supernet.logits()[0][0]
        size = 0.05 * weight[..., ~ring].square().mean().sqrt()
        weight[..., ring] = size * torch.randn_like(weight[..., ring])
        moved = float(supernet.logits()[0][0] - before)
    assert float(before) == pytest.approx(-2.0, abs=1e-3)
    assert low < moved < high
