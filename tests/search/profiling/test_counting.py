"""Tables made by counting say what fvcore counts for the whole network."""

from __future__ import annotations

import dataclasses
import random

import pytest

from backbones import build_classifier, predict_runtime
from backbones.architecture import Activation
from detection.report import count_macs
from search.profiling.counting import load_table
from search.space import SearchSpace


def test_counts_equal_the_whole_network(space: SearchSpace, rng: random.Random) -> None:
    architecture = space.architecture(space.sample(rng), "random")
    network = build_classifier(architecture)
    macs = load_table("macs", space, (96, 64))
    assert macs.unit == "MMACs"
    expected = count_macs(network, (3, 96, 64)) / 1e6
    assert predict_runtime(architecture, macs) == pytest.approx(expected)
    params = load_table("params", space, (224, 224))
    expected = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert predict_runtime(architecture, params) == pytest.approx(expected)


@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_swish"])
def test_proxies_of_other_options_and_activations(
    wide_space: SearchSpace, rng: random.Random, activation: Activation
) -> None:
    space = dataclasses.replace(wide_space, activation=activation)
    table = load_table("macs", space, (64, 32))
    assert table.activation == activation
    for choices in ([space.candidates[13]] * 2, space.sample(rng), space.sample(rng)):
        architecture = space.architecture(choices, "random")
        expected = count_macs(build_classifier(architecture), (3, 64, 32)) / 1e6
        assert predict_runtime(architecture, table) == pytest.approx(expected)


def test_other_names_are_tables(space: SearchSpace) -> None:
    assert load_table("pixel1", space, (224, 224)).name == "pixel1"
