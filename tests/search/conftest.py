"""Shared pieces of the search tests."""

from __future__ import annotations

import random

import pytest
import torch

from backbones import LatencyTable
from search.space import SearchSpace
from search.supernet import Supernet


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    """The paper's full space."""
    return SearchSpace.load("imagenet")


@pytest.fixture(scope="session")
def table() -> LatencyTable:
    """The Pixel 1 table."""
    return LatencyTable.load("pixel1")


@pytest.fixture
def rng() -> random.Random:
    """The same choices in every run."""
    return random.Random(0)


def randomized_supernet(space: SearchSpace, num_classes: int = 10) -> Supernet:
    """A supernet whose norms, biases and statistics are all away from their defaults."""
    torch.manual_seed(0)
    supernet = Supernet(space, num_classes)
    with torch.no_grad():
        for name, value in supernet.state_dict().items():
            if "running_var" in name:
                value.uniform_(0.5, 1.5)
            elif "norm" in name and value.is_floating_point():
                value.add_(torch.randn(value.shape) * 0.3)
            elif name.endswith("bias"):
                value.normal_(0, 0.5)
    return supernet.eval()
