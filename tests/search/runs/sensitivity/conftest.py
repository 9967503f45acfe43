"""A search that starts from a network of the small space, and measures its choices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from backbones.exported import save_backbone
from search.runs.classification import SearchTrainer
from search.space import Candidate, Choice, SearchSpace
from tests.search.conftest import SHORT, make_cfg
from tests.search.start.conftest import random_network

OWN: list[Choice] = [Candidate(1, 1, 0), Candidate(1, 1, 0), Candidate(0, 1, 0)]
"""The network to start from; its third layer could be skipped."""

TARGET = 0.65


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network of the small space."""
    folder = tmp_path_factory.mktemp("start")
    architecture = SearchSpace.load("digits_small").architecture(OWN, "own")
    save_backbone(folder, architecture, random_network(architecture, 2).state_dict())
    return folder


@pytest.fixture
def config(start: Path, images: Path, tmp_path: Path) -> Callable[..., CfgNode]:
    def make(*options: str) -> CfgNode:
        counts = ("SEARCH.SENSITIVITY.IMAGES", "6", "SEARCH.SENSITIVITY.CALIBRATION_BATCHES", "2")
        own = ("SEARCH.START", str(start), "SEARCH.FORMULATION", "sensitivity")
        split = ("SEARCH.HELD_OUT", "0.5")
        small = (*own, *counts, *split, *SHORT, *options)
        return make_cfg("search/digits_small.yaml", images, tmp_path / "run", *small)

    return make


@pytest.fixture
def trainer(config: Callable[..., CfgNode]) -> SearchTrainer:
    """Started, but not trained."""
    made = SearchTrainer(config())
    made.resume_or_load(resume=False)
    return made
