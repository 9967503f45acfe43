"""How choices are encoded in a supernet: as parts of one path (Fig. 1), or as paths (Eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from detectron2.config import CfgNode

from backbones.blocks import NormLayer
from search.space import SearchSpace
from search.supernets.multi_path import MultiPathSupernet
from search.supernets.one_shot import OneShot
from search.supernets.single_path import Supernet

_FLOOR = 0.1
"""Of the importance where a search starts from a network: its kernels grow from rings of 0."""


class Encoding(Protocol):
    """Builds the supernets of a formulation."""

    def build(
        self, cfg: CfgNode, space: SearchSpace, num_classes: int, norm_layer: NormLayer | None
    ) -> OneShot:
        """The supernet that ``cfg.SEARCH`` describes, of a space of its own widths."""


@dataclass(frozen=True)
class SinglePath:
    """All candidates share the weights of the largest one.

    Attributes:
        relaxation: of the indicators (``search.supernets.thresholds.GATES``).
        importance: what thresholds are compared with; None is ``SEARCH.IMPORTANCE``.
        initial_logit: where decisions start; None is ``SEARCH.INITIAL_LOGIT``.
    """

    relaxation: str
    importance: str | None = None
    initial_logit: float | None = None

    def build(
        self, cfg: CfgNode, space: SearchSpace, num_classes: int, norm_layer: NormLayer | None
    ) -> Supernet:
        """The single-path supernet."""
        node = cfg.SEARCH
        return Supernet(
            space,
            num_classes,
            cfg.CLASSIFICATION.DROP_RATE,
            relaxation=self.relaxation,
            importance=node.IMPORTANCE if self.importance is None else self.importance,
            temperature=node.TEMPERATURE,
            initial_logit=node.INITIAL_LOGIT if self.initial_logit is None else self.initial_logit,
            residual_scale=node.RESIDUAL_SCALE,
            importance_floor=_FLOOR if node.START else 0.0,
            norm_layer=norm_layer,
        )


@dataclass(frozen=True)
class MultiPath:
    """Every candidate is a path with weights of its own.

    Attributes:
        path_weights: of a layer's paths (``search.supernets.multi_path.PATH_WEIGHTS``).
    """

    path_weights: str

    def build(
        self, cfg: CfgNode, space: SearchSpace, num_classes: int, norm_layer: NormLayer | None
    ) -> MultiPathSupernet:
        """The multi-path supernet."""
        return MultiPathSupernet(
            space,
            num_classes,
            cfg.CLASSIFICATION.DROP_RATE,
            path_weights=self.path_weights,
            temperature=cfg.SEARCH.TEMPERATURE,
            residual_scale=cfg.SEARCH.RESIDUAL_SCALE,
            norm_layer=norm_layer,
        )
