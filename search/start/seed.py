"""What ``SEARCH.START`` names: the network to start from, its space, and where its weights are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.trained import named_architecture, named_weights
from backbones.zoo import list_models
from search.space import Choice, SearchSpace
from search.start.around import Options, space_around

AROUND = "around"
"""``SEARCH.SPACE`` of the space around ``SEARCH.START``."""


@dataclass(frozen=True)
class Seed:
    """The network that a search starts from.

    Attributes:
        architecture: of the network.
        space: that is searched.
        choices: that make the network in the space.
        weights: address or file.
    """

    architecture: Architecture
    space: SearchSpace
    choices: tuple[Choice, ...]
    weights: str


def search_space(cfg: CfgNode) -> SearchSpace:
    """The space that ``cfg.SEARCH`` describes: a named one, a file, or that around a network.

    Raises:
        UserError: if there is none of that name, or no network to take it from.
    """
    if cfg.SEARCH.SPACE != AROUND:
        return SearchSpace.load(cfg.SEARCH.SPACE)
    if not cfg.SEARCH.START:
        raise UserError(
            f"SEARCH.SPACE is '{AROUND}', but SEARCH.START is empty; name the network to search "
            f"around: SEARCH.START {list_models()[0]}"
        )
    return space_around(named_architecture(cfg.SEARCH.START), _options(cfg))[0]


def seed_of(cfg: CfgNode) -> Seed | None:
    """The network that ``SEARCH.START`` names; None where it is empty.

    Raises:
        UserError: if there is no such network, it has no weights, or it is not of the space.
    """
    start = cfg.SEARCH.START
    if not start:
        return None
    architecture = named_architecture(start)
    if cfg.SEARCH.SPACE == AROUND:
        space, choices = space_around(architecture, _options(cfg))
    else:
        space = SearchSpace.load(cfg.SEARCH.SPACE)
        try:
            choices = space.choices_of(architecture)
        except UserError as error:
            raise UserError(
                f"SEARCH.START: {error}; set SEARCH.SPACE {AROUND}, or start from another network"
            ) from None
    weights = cfg.MODEL.WEIGHTS or named_weights(start, "SEARCH.START")
    return Seed(architecture, space, tuple(choices), weights)


def reference_choices(seed: Seed | None, space: SearchSpace) -> Sequence[Choice]:
    """The choices of the network that a search starts from; without one, of the largest."""
    return seed.choices if seed else [space.candidates[-1]] * len(space.layers)


def _options(cfg: CfgNode) -> Options:
    node = cfg.SEARCH.AROUND
    return Options(
        tuple(node.KERNEL_SIZES), tuple(node.EXPANSIONS), tuple(node.SE_RATIOS), node.EXTRA_DEPTH
    )
