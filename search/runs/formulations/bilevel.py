"""Weights and decisions trained in turns, each on images of their own (Eq. 8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from detectron2.config import CfgNode
from torch.utils.data import Subset

from search.classification.data import ImageSet, build_train_loader, split_images
from search.runs.formulations.base import Parts, Search, SupernetFormulation


@dataclass(frozen=True)
class Bilevel(SupernetFormulation):
    """Weights are trained in even iterations, decisions in odd ones."""

    kind = "bilevel"
    schedule = "weights and decisions in turns, decisions on the images held out"

    def parts(self, cfg: CfgNode, images: ImageSet) -> Parts:
        """Images for the weights, and ``SEARCH.HELD_OUT`` of them for the decisions."""
        kept, held_out = split_images(cfg, len(images))
        return Subset(images, kept), Subset(images, held_out)

    def batches(self, cfg: CfgNode, parts: Parts, start_iter: int) -> Iterator[Any]:
        """Endless batches from iteration ``start_iter`` on, from the two parts in turns."""
        starts = ((start_iter + 1) // 2, start_iter // 2)
        loaders = [
            iter(build_train_loader(cfg, part, start))
            for part, start in zip(parts, starts, strict=True)
        ]
        return (
            next(loaders[iteration % 2])
            for iteration in count(start_iter)
            for _ in range(cfg.SOLVER.ACCUMULATE)
        )

    def mask_gradients(self, search: Search) -> None:
        """Keeps the gradients of the side whose turn it is."""
        deciding = set(search.supernet.decision_parameters())
        for parameter in search.supernet.parameters():
            if (parameter in deciding) != bool(search.iter % 2):
                parameter.grad = None
