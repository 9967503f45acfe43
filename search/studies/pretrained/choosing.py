"""How a network is chosen among those of an adapted supernet: searches, and their controls."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from backbones.errors import UserError
from backbones.zoo import load_architecture
from search.runs.formulations.base import Judge, Search, SupernetFormulation
from search.runs.formulations.registry import FORMULATIONS
from search.runs.formulations.values import loss_values
from search.selection.sampling import sample_at_target
from search.selection.target import select_by_value
from search.space import Choice

_DRAWS = 2000
_BELOW = 0.04
"""Part by which a network of random drops may be faster than the target."""

BLIND_FILE = "blind.json"
"""In a supernet's folder: the losses where the images have each other's labels."""

Choosing = Callable[[Search, Judge, float, int], list[Choice]]
"""From an adapted supernet, a judge, a target runtime and a seed to a network."""


@dataclass(frozen=True)
class Row:
    """A row of the study.

    Attributes:
        formulation: that the supernet is trained by.
        choose: the network.
        own_supernet: whether each seed has a supernet of its own; else all take the first one's.
        per_target: False where the network is the same at every target.
        measure: of an adapted supernet, what the networks of all targets are chosen by.
        narrows: whether the network chosen loses channels everywhere until it is at the target.
    """

    formulation: str
    choose: Choosing
    own_supernet: bool = True
    per_target: bool = True
    measure: Callable[[Search, Judge], object] | None = None
    narrows: bool = False


def searched(name: str, search: Search, judge: Judge, target: float, seed: int) -> list[Choice]:
    """What the formulation of a name finds."""
    formulation = FORMULATIONS[name]
    assert isinstance(formulation, SupernetFormulation)
    return formulation.choose(search, target, judge)


def start(search: Search, judge: Judge, target: float, seed: int) -> list[Choice]:
    """The start itself, whatever its runtime."""
    return list(search.reference)


def drawn(search: Search, judge: Judge, target: float, seed: int) -> list[Choice]:
    """A network of the space at the target, drawn uniformly."""
    rng, tolerance = random.Random(seed), search.cfg.SEARCH.TOLERANCE
    return sample_at_target(search.space, search.runtime_model, target, rng, tolerance)


def dropped(search: Search, judge: Judge, target: float, seed: int) -> list[Choice]:
    """The start without random layers; strided ones stay.

    Layers are dropped in a random order until the target is reached; where that is not enough,
    those that are left shrink to their smallest candidate in another.

    Raises:
        UserError: if no order ends near the target.
    """
    space, model = search.space, search.runtime_model
    rng = random.Random(seed)
    droppable = [i for i, layer in enumerate(space.layers) if layer.droppable]
    others = [i for i, layer in enumerate(space.layers) if not layer.droppable]
    for _ in range(_DRAWS):
        choices = list(search.reference)
        order: list[tuple[int, Choice]] = [
            (index, None) for index in rng.sample(droppable, len(droppable))
        ]
        order += [(i, space.candidates[0]) for i in rng.sample(others, len(others))]
        for index, choice in order:
            if model.runtime_of(choices) <= target:
                break
            choices[index] = choice
        if target * (1 - _BELOW) <= model.runtime_of(choices) <= target:
            return choices
    raise UserError(
        f"no network of random drops between {target * (1 - _BELOW):.4g} and {target:.4g} "
        f"{model.table.unit}; take another part of the start's runtime"
    )


def blind(search: Search, judge: Judge, target: float, seed: int) -> list[Choice]:
    """What measuring finds where the images have each other's labels: the data say nothing."""
    values, node = blind_values(search, judge), search.cfg.SEARCH
    return select_by_value(search.space, search.runtime_model, values, target, node.TOLERANCE)


def blind_values(search: Search, judge: Judge) -> list[Tensor]:
    """What :func:`blind` chooses by: measured once for a supernet."""
    return loss_values(search, judge, judge.blind_loss, search.reference, BLIND_FILE)


def given(file: str) -> Row:
    """The row of a network that was found elsewhere, cut out of the supernets of each seed.

    Args:
        file: its architecture.
    """
    return Row("sensitivity", partial(described, file))


def described(file: str, search: Search, judge: Judge, target: float, seed: int) -> list[Choice]:
    """The network of an architecture file."""
    return search.space.choices_of(load_architecture(file))


ROWS: Mapping[str, Row] = {
    "start": Row("sensitivity", start, per_target=False),
    "sensitivity": Row("sensitivity", partial(searched, "sensitivity")),
    "taylor": Row("sensitivity", partial(searched, "taylor")),
    "sigmoid": Row("sigmoid", partial(searched, "sigmoid")),
    "blind": Row("sensitivity", blind, measure=blind_values),
    "drop": Row("sensitivity", dropped, own_supernet=False),
    "random": Row("sensitivity", drawn, own_supernet=False),
    "narrowed": Row("sensitivity", start, narrows=True),
}
"""By its name in tables and on the command line."""
