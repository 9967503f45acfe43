"""What ``SEARCH.START`` names: the network to start from, its space, and where its weights are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

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
        UserError: if there is no such network, it has no weights, or it is not of the space; or
            if ``SEARCH.REFIT_BATCHES`` cannot be fitted on.
    """
    start = cfg.SEARCH.START
    _check_refit(cfg.SEARCH)
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


def _check_refit(node: CfgNode) -> None:
    """Insists on what layers can be fitted to and on, where they are to be."""
    count = node.REFIT_BATCHES
    if not count:
        return
    if count < 2:
        raise UserError(
            f"SEARCH.REFIT_BATCHES is {count}; expected 0 or at least 2: layers are fitted on one "
            "half of the batches and judged on the other"
        )
    if not node.START:
        raise UserError(
            f"SEARCH.REFIT_BATCHES is {count}, but SEARCH.START is empty: there is no network to "
            "fit layers to; name one, or set SEARCH.REFIT_BATCHES 0"
        )
    for key, least in (("CALIBRATION_BATCHES", 1), ("SENSITIVITY.CALIBRATION_BATCHES", 2)):
        if (found := attrgetter(key)(node)) < least:
            raise UserError(
                f"SEARCH.{key} is {found}; with SEARCH.REFIT_BATCHES {count} expected {least} or "
                "more, for statistics of what was fitted"
            )


def _options(cfg: CfgNode) -> Options:
    node = cfg.SEARCH.AROUND
    return Options(
        tuple(node.KERNEL_SIZES), tuple(node.EXPANSIONS), tuple(node.SE_RATIOS), node.EXTRA_DEPTH
    )
