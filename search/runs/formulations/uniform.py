"""A supernet trained for every network alike, and an evolution over its weights."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager
from dataclasses import dataclass

from detectron2.config import CfgNode
from torch import Tensor
from torch.utils.data import Subset

from backbones.errors import UserError
from search.classification.data import ImageSet, split_images
from search.runs.formulations.base import Judge, Parts, Search, SupernetFormulation, targets
from search.selection.evolution import evolve, first_generation
from search.space import Choice


@dataclass(frozen=True)
class Uniform(SupernetFormulation):
    """Every step trains the weights of one network, drawn uniformly; no decision is trained."""

    kind = "uniform"
    schedule = "weights alone, in every step those of a network drawn uniformly"

    def check(self, search: Search) -> None:
        """Insists on a target, and on what the evolution starts with there."""
        node = search.cfg.SEARCH
        if not node.TARGET:
            raise UserError(
                f"SEARCH.FORMULATION '{node.FORMULATION}' has no λ; set SEARCH.TARGET to the "
                "runtime to search for"
            )
        for target in targets(search.cfg):
            first_generation(
                search.space,
                search.runtime_model,
                target,
                random.Random(search.cfg.SEED),
                node.EVOLUTION.POPULATION,
                node.EVOLUTION.GENERATIONS,
                node.TOLERANCE,
            )

    def parts(self, cfg: CfgNode, images: ImageSet) -> Parts:
        """Images for the weights, and ``SEARCH.HELD_OUT`` of them to judge networks on."""
        kept, held_out = split_images(cfg, len(images))
        return Subset(images, kept), Subset(images, held_out)

    def step(self, search: Search) -> AbstractContextManager[None]:
        """Runs the supernet as a network drawn by seed and iteration."""
        drawn = search.space.sample(random.Random(f"{search.cfg.SEED} {search.iter}"))
        return search.supernet.using(drawn)

    def losses(self, search: Search) -> dict[str, Tensor]:
        """None: the runtime is a constraint of the evolution."""
        return {}

    def log(self, search: Search) -> None:
        """Nothing: nothing is decided."""

    def has_network(self, complete: bool) -> bool:
        """At the end alone: an evolution judges many networks, on trained weights."""
        return complete

    def choose(self, search: Search, target: float, judge: Judge) -> list[Choice]:
        """The fittest network that an evolution meets at the target."""
        node = search.cfg.SEARCH
        return evolve(
            search.space,
            search.runtime_model,
            judge.fitness,
            target,
            random.Random(search.cfg.SEED),
            node.EVOLUTION.POPULATION,
            node.EVOLUTION.GENERATIONS,
            node.TOLERANCE,
        )
