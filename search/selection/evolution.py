"""Evolutionary search over a trained supernet: the modern one-shot baseline.

Single Path One-Shot NAS (Guo et al., ECCV 2020): the supernet is trained with networks drawn
uniformly, and an evolution under the runtime constraint judges networks with its weights.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from backbones.errors import UserError
from search.selection.runtime import RuntimeModel
from search.selection.sampling import sample_at_target
from search.selection.target import ROUNDING
from search.space import Choice, SearchSpace

MUTATION = 0.1
"""Probability that a layer of a mutated network is drawn anew, as in that paper."""

_ATTEMPTS = 200

Network = tuple[Choice, ...]


def evolve(
    space: SearchSpace,
    runtime_model: RuntimeModel,
    fitness: Callable[[Sequence[Choice]], float],
    target: float,
    rng: random.Random,
    population: int,
    generations: int,
    tolerance: float,
) -> list[Choice]:
    """The fittest network that was met, at the target runtime.

    The better fifth of all networks met are the parents of a generation, of which one half are
    mutations and the other crossovers. A network is judged once.

    Args:
        space: the search space.
        runtime_model: predicts every layer's candidates.
        fitness: of a network; larger is better.
        target: in the unit of the latency table.
        rng: of all draws.
        population: networks per generation.
        generations: after the first one, which is drawn at random.
        tolerance: the runtime is between ``target · (1 - tolerance)`` and ``target``.

    Raises:
        UserError: if the population has less than 2 networks, or none has the target runtime.
    """
    members = first_generation(
        space, runtime_model, target, rng, population, generations, tolerance
    )
    in_band = _band(space, runtime_model, target, tolerance)

    def drawn() -> Network:
        return tuple(sample_at_target(space, runtime_model, target, rng, tolerance))

    judged: dict[Network, float] = {}
    for generation in range(generations + 1):
        for network in members:
            if network not in judged:
                judged[network] = fitness(network)
        if generation < generations:
            parents = sorted(judged, key=judged.__getitem__, reverse=True)
            parents = parents[: max(population // 5, 2)]
            members = [
                _child(space, parents, rng, in_band, mutate=index % 2 == 0) or drawn()
                for index in range(population)
            ]
    best = max(judged, key=judged.__getitem__)
    return list(best)


def first_generation(
    space: SearchSpace,
    runtime_model: RuntimeModel,
    target: float,
    rng: random.Random,
    population: int,
    generations: int,
    tolerance: float,
) -> list[Network]:
    """The networks that an evolution starts with; arguments and errors are those of `evolve`.

    Where this succeeds before the supernet is trained, it does so afterwards, by the same draws.
    """
    if population < 2 or generations < 0:
        raise UserError(
            f"SEARCH.EVOLUTION.POPULATION is {population} and GENERATIONS {generations}; expected "
            "2 or more networks and 0 or more generations"
        )
    return [
        tuple(sample_at_target(space, runtime_model, target, rng, tolerance))
        for _ in range(population)
    ]


def _band(
    space: SearchSpace, runtime_model: RuntimeModel, target: float, tolerance: float
) -> Callable[[Network], bool]:
    runtimes = [
        dict(zip(space.choices(layer), runtime_model.choice_runtimes(index), strict=True))
        for index, layer in enumerate(space.layers)
    ]
    constant = runtime_model.fixed_runtime

    def in_band(network: Network) -> bool:
        total = constant + sum(row[c] for row, c in zip(runtimes, network, strict=True))
        lowest = target * (1 - tolerance - ROUNDING)
        return lowest <= total <= target * (1 + ROUNDING)

    return in_band


def _child(
    space: SearchSpace,
    parents: Sequence[Network],
    rng: random.Random,
    in_band: Callable[[Network], bool],
    mutate: bool,
) -> Network | None:
    """A network in the band from one or two parents; None where none was met."""
    for _ in range(_ATTEMPTS):
        if mutate:
            parent = rng.choice(parents)
            child = tuple(
                rng.choice(space.choices(layer)) if rng.random() < MUTATION else choice
                for layer, choice in zip(space.layers, parent, strict=True)
            )
        else:
            pair = rng.choice(parents), rng.choice(parents)
            child = tuple(rng.choice([a, b]) for a, b in zip(*pair, strict=True))
        if child not in parents and in_band(child):
            return child
    return None
