"""What ``SEARCH.START`` names: the network to start from, its space, and where its weights are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE, BACKBONE_FILE
from backbones.published import SCHEMES, find_published, published_for
from backbones.zoo import list_models, load_architecture
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
    return space_around(_architecture(cfg.SEARCH.START), _options(cfg))[0]


def seed_of(cfg: CfgNode) -> Seed | None:
    """The network that ``SEARCH.START`` names; None where it is empty.

    Raises:
        UserError: if there is no such network, it has no weights, or it is not of the space.
    """
    start = cfg.SEARCH.START
    if not start:
        return None
    architecture = _architecture(start)
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
    return Seed(architecture, space, tuple(choices), cfg.MODEL.WEIGHTS or _weights(start))


def _options(cfg: CfgNode) -> Options:
    node = cfg.SEARCH.AROUND
    return Options(
        tuple(node.KERNEL_SIZES), tuple(node.EXPANSIONS), tuple(node.SE_RATIOS), node.EXTRA_DEPTH
    )


def _architecture(start: str) -> Architecture:
    if start.startswith(SCHEMES):
        return find_published(start).architecture
    return load_architecture(str(_file(start)) if _is_path(start) else start)


def _weights(start: str) -> str:
    """Address or file of the weights of a network that is named without them."""
    if start.startswith(SCHEMES):
        return start
    if not _is_path(start):
        return published_for(load_architecture(start)).address
    beside = _file(start).with_name(BACKBONE_FILE)
    if not beside.is_file():
        raise UserError(
            f"SEARCH.START is '{start}', which has no {BACKBONE_FILE} beside it; name its weights: "
            "MODEL.WEIGHTS weights.pth"
        )
    return str(beside)


def _is_path(start: str) -> bool:
    return start.endswith(".json") or os.sep in start or Path(start).is_dir()


def _file(start: str) -> Path:
    """An architecture file, or the one in a run's folder."""
    path = Path(start).expanduser()
    return path / ARCHITECTURE_FILE if path.is_dir() else path


def start_facts(seed: Seed) -> Mapping[str, Any]:
    """What a provenance says of the start."""
    return {"start": seed.architecture.name, "start_weights": seed.weights}
