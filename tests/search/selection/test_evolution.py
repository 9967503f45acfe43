"""The evolution against a made-up fitness whose best network is known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from backbones import LatencyTable, UserError
from backbones.latency import predict_runtime
from search.selection import evolution
from search.selection.evolution import Network, _child, evolve
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


def test_generations_below_none(space: SearchSpace, table: LatencyTable) -> None:
    with pytest.raises(UserError, match="GENERATIONS -1; expected"):
        evolve(space, RuntimeModel(space, table), kernels, 80.0, random.Random(0), 4, -1, 0.01)


@pytest.mark.parametrize(("population", "parents"), [(4, 2), (15, 3)])
def test_the_better_fifth_of_all_met_has_children_of_both_kinds(
    space: SearchSpace,
    table: LatencyTable,
    monkeypatch: pytest.MonkeyPatch,
    population: int,
    parents: int,
) -> None:
    """Whatever has no child in the band is drawn anew; the fittest of all generations is found."""
    scores: dict[tuple[Choice, ...], float] = {}
    luck, born = random.Random(1), []

    def fitness(choices: Sequence[Choice]) -> float:
        scores[tuple(choices)] = luck.random()
        return scores[tuple(choices)]

    def childless(_: SearchSpace, pool: Sequence[Network], *rest: Any, mutate: bool) -> None:
        born.append((pool, mutate))
        best = sorted(scores.values(), reverse=True)
        assert [scores[network] for network in pool] == best[:parents]

    monkeypatch.setattr(evolution, "_child", childless)
    arguments = (80.0, random.Random(0), population, 3, 0.01)
    found = evolve(space, RuntimeModel(space, table), fitness, *arguments)
    assert [mutate for _, mutate in born[:4]] == [True, False, True, False]
    assert len(born) == 3 * population
    assert len(scores) == 4 * population
    assert scores[tuple(found)] == max(scores.values())
    assert max(scores.values()) > max(list(scores.values())[-population:])


def test_mutations_redraw_a_tenth_of_the_layers(space: SearchSpace, rng: random.Random) -> None:
    """Of which one in 13, or 12, comes out as it was."""
    parent = tuple(space.sample(rng))
    changed = 0
    for _ in range(500):
        child = _child(space, [parent], rng, lambda _: True, mutate=True)
        assert child is not None and child != parent
        changed += sum(a != b for a, b in zip(child, parent, strict=True))
    rate = 0.1 * 12 / 13
    expected = rate / (1 - (1 - rate) ** 20)  # given that some layer changes
    assert changed / (500 * 20) == pytest.approx(expected, rel=0.1)


def test_crossovers_mix_two_parents(space: SearchSpace, rng: random.Random) -> None:
    parents = [tuple(space.sample(rng)) for _ in range(2)]
    for _ in range(50):
        child = _child(space, parents, rng, lambda _: True, mutate=False)
        assert child is not None and child not in parents
        assert all(choice in pair for choice, *pair in zip(child, *parents, strict=True))
    twin = (parents[0][0], *parents[0][1:-1], parents[1][-1])
    assert twin != parents[0]
    # in between two networks that differ in one layer there is none
    assert _child(space, [parents[0], twin], rng, lambda _: True, mutate=False) is None
    assert _child(space, parents, rng, lambda _: False, mutate=False) is None
