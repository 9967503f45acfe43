"""A supernet adapted from a network, and every choice of every layer measured in it."""

from __future__ import annotations

import logging
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

logger = logging.getLogger(__name__)

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
        if counts.RIVALS < 0:
            raise UserError(f"SEARCH.SENSITIVITY.RIVALS is {counts.RIVALS}; expected 0 or more")

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
        network of every round. Each round also names its network at the target. All of them, and
        ``SEARCH.SENSITIVITY.RIVALS`` of the last one, are measured whole, as they would be
        exported; then those of the best one, until none has a lower loss than it.
        """
        space, model, node = search.space, search.runtime_model, search.cfg.SEARCH
        rounds, count = node.SENSITIVITY.ROUNDS, node.SENSITIVITY.RIVALS
        values: list[Tensor] = []
        current = list(search.reference)
        runtime = model.runtime_of(current)
        found = []
        for index in range(rounds):
            values = self.values(search, judge, current)
            found.append(select_by_value(space, model, values, target, node.TOLERANCE))
            level = runtime * (target / runtime) ** ((index + 1) / rounds)
            current = select_by_value(space, model, values, level, node.TOLERANCE)
        losses: dict[tuple[Choice, ...], float] = {}
        best, former = tuple(found[-1]), None
        while best != former:
            near = map(tuple, rivals(search, values, target, best) if count else [])
            further = [network for network in near if network not in losses][:count]
            new = dict.fromkeys(further if losses else [*map(tuple, found), *further])
            if list(new) == [best]:  # nothing to compare it with
                return list(best)
            losses |= {network: judge.exported_loss(network) for network in new}
            best, former = min(losses, key=losses.__getitem__), best
        logger.info(
            "measured %d whole networks at %.4g %s: loss %.4f to %.4f; the one whose values add up "
            "to the most has %.4f",
            *(len(losses), target, model.table.unit, losses[best], max(losses.values())),
            losses[tuple(found[-1])],
        )
        return list(best)


def rivals(
    search: Search, values: Sequence[Tensor], target: float, network: Sequence[Choice]
) -> list[list[Choice]]:
    """For every layer the network at the target that is worth most without a network's choice.

    Args:
        search: in whose space they are.
        values: of the choices of every layer.
        target: runtime, in the unit of the latency table.
        network: that is worth most.

    Returns:
        Different networks, those that are worth most first.
    """
    space, tolerance = search.space, search.cfg.SEARCH.TOLERANCE
    worth: dict[tuple[Choice, ...], float] = {}
    out_of_reach = 1 + sum(float(row.max() - row.min()) for row in values)
    for index, (layer, own) in enumerate(zip(space.layers, network, strict=True)):
        others = values[index].clone()
        others[space.choices(layer).index(own)] -= out_of_reach
        changed = [*values[:index], others, *values[index + 1 :]]
        rival = select_by_value(space, search.runtime_model, changed, target, tolerance)
        if rival[index] != own:  # else no network at the target is without it
            worth[tuple(rival)] = sum(
                float(row[space.choices(each).index(choice)])
                for row, each, choice in zip(values, space.layers, rival, strict=True)
            )
    return [list(rival) for rival in sorted(worth, key=lambda rival: -worth[rival])]


def neighbour(space: SearchSpace, reference: Sequence[Choice], rng: random.Random) -> list[Choice]:
    """A network that shares a part of its layers, drawn from 0 to 1, with another one."""
    share = rng.random()
    return [
        rng.choice(space.choices(layer)) if rng.random() < share else choice
        for layer, choice in zip(space.layers, reference, strict=True)
    ]
