"""A supernet adapted from a network, and every choice of every layer measured in it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from detectron2.config import CfgNode
from torch import Tensor
from torch.utils.data import Subset

from backbones.errors import UserError
from search.classification.data import ImageSet, split_images
from search.runs.formulations.base import Judge, Parts, Search, SupernetFormulation
from search.selection.target import select_by_value
from search.space import Choice, SearchSpace

Values = Callable[[Search, Judge, Sequence[Choice]], list[Tensor]]
"""What every choice of every layer is worth in place of a network's own; larger is better."""


@dataclass(frozen=True)
class Measured(SupernetFormulation):
    """Adapts a network and its neighbours, then values choices one by one around it.

    Attributes:
        values: of the choices around a network.
    """

    values: Values

    kind = "measured"
    schedule = "weights alone, in turns those of the start and of a network near it"

    @property
    def on_detectors(self) -> bool:
        """A detector's losses train and measure as a classifier's do."""
        return True

    def check(self, search: Search) -> None:
        """Insists on a target, and on rounds."""
        node = search.cfg.SEARCH
        if not node.TARGET:
            raise UserError(
                f"SEARCH.FORMULATION '{node.FORMULATION}' has no λ; set SEARCH.TARGET to the "
                "runtime to search for"
            )
        counts = node.SENSITIVITY
        if min(counts.ROUNDS, counts.IMAGES, counts.CALIBRATION_BATCHES) < 1:
            raise UserError(
                f"SEARCH.SENSITIVITY.ROUNDS is {counts.ROUNDS}, IMAGES {counts.IMAGES} and "
                f"CALIBRATION_BATCHES {counts.CALIBRATION_BATCHES}; expected 1 or more of each"
            )

    def parts(self, cfg: CfgNode, images: ImageSet) -> Parts:
        """Images for the weights, and ``SEARCH.HELD_OUT`` of them to measure on."""
        kept, held_out = split_images(cfg, len(images))
        return Subset(images, kept), Subset(images, held_out)

    def step(self, search: Search) -> AbstractContextManager[None]:
        """Runs the supernet as the start, and in every other iteration as a network near it."""
        if search.iter % 2 == 0:
            return search.supernet.using(search.reference)
        rng = random.Random(f"{search.cfg.SEED} {search.iter}")
        return search.supernet.using(neighbour(search.space, search.reference, rng))

    def losses(self, search: Search) -> dict[str, Tensor]:
        """None: the runtime is a constraint of the selection."""
        return {}

    def log(self, search: Search) -> None:
        """Nothing: nothing is decided."""

    def has_network(self, complete: bool) -> bool:
        """At the end alone, on trained weights."""
        return complete

    def choose(self, search: Search, target: float, judge: Judge) -> list[Choice]:
        """The network at the target that is worth most by its choices, on the way from the start.

        Values of single choices do not add up over many layers. So the runtime falls to the target
        in ``SEARCH.SENSITIVITY.ROUNDS`` equal factors, and choices are valued anew around the
        network of every round. Each round also names its network at the target, and the one of
        them with the lowest loss is taken.
        """
        space, model, node = search.space, search.runtime_model, search.cfg.SEARCH
        rounds = node.SENSITIVITY.ROUNDS
        current = list(search.reference)
        runtime = model.runtime_of(current)
        found = []
        for index in range(rounds):
            values = self.values(search, judge, current)
            found.append(select_by_value(space, model, values, target, node.TOLERANCE))
            level = runtime * (target / runtime) ** ((index + 1) / rounds)
            current = select_by_value(space, model, values, level, node.TOLERANCE)
        different = list(map(list, dict.fromkeys(map(tuple, found))))
        if len(different) == 1:
            return different[0]
        return min(different, key=judge.loss)


def neighbour(space: SearchSpace, reference: Sequence[Choice], rng: random.Random) -> list[Choice]:
    """A network that shares a part of its layers, drawn from 0 to 1, with another one."""
    share = rng.random()
    return [
        rng.choice(space.choices(layer)) if rng.random() < share else choice
        for layer, choice in zip(space.layers, reference, strict=True)
    ]
