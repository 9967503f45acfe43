"""The evolution against a made-up fitness whose best network is known."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from backbones import LatencyTable, UserError
from backbones.latency import predict_runtime
from search.selection.evolution import evolve
from search.selection.runtime import RuntimeModel
from search.selection.sampling import sample_at_target
from search.space import Choice, SearchSpace


def kernels(choices: Sequence[Choice]) -> float:
    return float(sum(choice is not None and choice.kernel == 1 for choice in choices))


def test_finds_better_than_as_many_random_draws(space: SearchSpace, table: LatencyTable) -> None:
    model = RuntimeModel(space, table)
    rng = random.Random(0)
    calls: list[Sequence[Choice]] = []

    def fitness(choices: Sequence[Choice]) -> float:
        calls.append(choices)
        return kernels(choices)

    found = evolve(space, model, fitness, 80.0, rng, 20, 10, 0.01)
    assert len(calls) == len(set(map(tuple, calls))) <= 20 * 11
    chance = max(kernels(sample_at_target(space, model, 80.0, rng, 0.01)) for _ in range(220))
    assert kernels(found) > chance
    runtimes = [predict_runtime(space.architecture(c, "met"), table) for c in calls]
    assert min(runtimes) >= 80 * 0.99 - 1e-3 and max(runtimes) <= 80 + 1e-3


def test_a_population_of_one(space: SearchSpace, table: LatencyTable) -> None:
    with pytest.raises(UserError, match="POPULATION is 1"):
        evolve(space, RuntimeModel(space, table), kernels, 80.0, random.Random(0), 1, 1, 0.01)
