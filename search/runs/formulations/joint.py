"""Weights and decisions trained together: the paper's search (Eq. 9-11)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from detectron2.config import CfgNode
from torch.utils.data import Subset

from search.classification.data import ImageSet
from search.runs.formulations.base import Parts, Search, SupernetFormulation
from search.runs.formulations.encodings import SinglePath


@dataclass(frozen=True)
class Joint(SupernetFormulation):
    """Every step trains weights and decisions, on all training images."""

    kind = "joint"
    schedule = "weights and decisions in every step, on all training images"

    @property
    def on_detectors(self) -> bool:
        """On a single path: a detector's losses train weights and decisions together, too."""
        return isinstance(self.encoding, SinglePath)

    def parts(self, cfg: CfgNode, images: ImageSet) -> Parts:
        """All images; none is held out."""
        return Subset(images, list(range(len(images)))), Subset(images, [])

    def step(self, search: Search) -> AbstractContextManager[None]:
        """Drops subsets at random in the first part of the search."""
        node = search.cfg.SEARCH
        dropping = search.progress < node.SUBSET_DROPOUT_UNTIL
        search.supernet.subset_dropout = node.SUBSET_DROPOUT if dropping else 0.0
        return nullcontext()
