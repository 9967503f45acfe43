"""The formulations of the search (Sec. VII-A): one key, ``SEARCH.FORMULATION``."""

from __future__ import annotations

from dataclasses import dataclass

from detectron2.config import CfgNode

from backbones.blocks import NormLayer
from backbones.errors import UserError
from search.space import SearchSpace
from search.supernets.multi_path import MultiPathSupernet
from search.supernets.one_shot import OneShot
from search.supernets.single_path import Supernet


@dataclass(frozen=True)
class Formulation:
    """How choices are encoded, and what is trained when.

    Attributes:
        relaxation: of the single path's indicators (``search.supernets.thresholds.GATES``), or of
            the paths' weights (``search.supernets.multi_path.PATH_WEIGHTS``).
        multi_path: every candidate is a path of its own.
        bilevel: weights and decisions are trained in turns, each on images of their own (Eq. 8);
            decisions then are parameters apart from the kernels, and start undecided.
        uniform: a network drawn uniformly is trained at every step, for an evolutionary search
            over the trained weights; no decision is trained.
    """

    relaxation: str
    multi_path: bool = False
    bilevel: bool = False
    uniform: bool = False


FORMULATIONS: dict[str, Formulation] = {
    "sigmoid": Formulation("sigmoid"),
    "ste": Formulation("ste"),
    "softmax": Formulation("softmax", bilevel=True),
    "multi-path": Formulation("softmax", multi_path=True, bilevel=True),
    "multi-path-gumbel": Formulation("gumbel", multi_path=True, bilevel=True),
    "evolution": Formulation("sigmoid", uniform=True),
}
"""``random`` is a formulation too, but trains no supernet (:mod:`search.selection.sampling`)."""


def formulation_of(cfg: CfgNode) -> Formulation:
    """The formulation that ``SEARCH.FORMULATION`` names.

    Raises:
        UserError: if there is none of that name.
    """
    name = cfg.SEARCH.FORMULATION
    if name not in FORMULATIONS:
        known = ", ".join([*FORMULATIONS, "random"])
        raise UserError(f"unknown SEARCH.FORMULATION '{name}'; expected one of {known}")
    return FORMULATIONS[name]


def build_supernet(
    cfg: CfgNode, space: SearchSpace, num_classes: int, norm_layer: NormLayer | None = None
) -> OneShot:
    """The supernet that ``cfg.SEARCH`` describes.

    Args:
        cfg: the configuration.
        space: of the supernet's own widths.
        num_classes: outputs of the classifier.
        norm_layer: normalisation; batch norm by default.
    """
    node, formulation = cfg.SEARCH, formulation_of(cfg)
    shared = (space, num_classes, cfg.CLASSIFICATION.DROP_RATE)
    if formulation.multi_path:
        return MultiPathSupernet(
            *shared,
            path_weights=formulation.relaxation,
            temperature=node.TEMPERATURE,
            residual_scale=node.RESIDUAL_SCALE,
            norm_layer=norm_layer,
        )
    return Supernet(
        *shared,
        relaxation=formulation.relaxation,
        importance="none" if formulation.bilevel else node.IMPORTANCE,
        temperature=node.TEMPERATURE,
        initial_logit=0.0 if formulation.bilevel else node.INITIAL_LOGIT,
        residual_scale=node.RESIDUAL_SCALE,
        norm_layer=norm_layer,
    )
