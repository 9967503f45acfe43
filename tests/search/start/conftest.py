"""Networks with weights that show every mistake, and supernets started from them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from backbones import Architecture, HeadSpec, LayerSpec, StemSpec, load_architecture
from backbones.network import Classifier, build_classifier
from search.start.around import Options, space_around
from search.start.remapping import remap
from search.start.seed import Seed
from search.supernets.single_path import Supernet
from tests.search.conftest import randomize


def tiny_network(**changes: object) -> Architecture:
    """Five strides, two stages of more than one layer, kernels and expansions of all kinds."""
    layers = (
        LayerSpec(8, op="ds"),
        LayerSpec(12, stride=2, expansion=3),
        LayerSpec(12, kernel_size=5, expansion=6),
        LayerSpec(16, stride=2, expansion=6),
        LayerSpec(24, kernel_size=5, stride=2, expansion=3),
        LayerSpec(24, expansion=3),
        LayerSpec(32, stride=2, expansion=6),
    )
    return Architecture("tiny", StemSpec(8), layers, HeadSpec(48))


def random_network(architecture: Architecture, num_classes: int = 7) -> Classifier:
    """A network in eval mode whose norms, biases and statistics are away from their defaults."""
    torch.manual_seed(1)
    network = build_classifier(architecture, num_classes, residual_scale=1.0)
    randomize(network)
    return network.eval()


Started = tuple[Supernet, Seed, Classifier]


def started(architecture: Architecture, options: Options) -> Started:
    """A supernet filled with a random network, the seed, and that network."""
    network = random_network(architecture)
    space, choices = space_around(architecture, options)
    seed = Seed(architecture, space, tuple(choices), "random weights")
    supernet = Supernet(space, network.num_classes, importance_floor=0.1).eval()
    remap(supernet, seed, network.state_dict())
    return supernet, seed, network


@pytest.fixture(scope="session")
def start() -> Callable[[str, Options], Started]:
    """By the name of a network of the zoo; kept, so nothing may be changed."""
    kept: dict[tuple[str, Options], Started] = {}

    def find(name: str, options: Options) -> Started:
        if (name, options) not in kept:
            kept[name, options] = started(load_architecture(name), options)
        return kept[name, options]

    return find
