"""The parts of a space add up to its networks, and equal shapes are measured once."""

from __future__ import annotations

import random

import pytest
import torch

from backbones.errors import UserError
from detection.deployment import Deployment
from detection.report import count_macs, count_parameters
from search.profiling.workload import (
    constant_items,
    layer_items,
    layer_shapes,
    network_item,
    random_networks,
    type_names,
)
from search.space import SearchSpace

DEPLOYMENTS = [
    Deployment("classification", (64, 96)),
    Deployment("detection", (60, 90), fpn_channels=16),
]


def test_the_full_space_has_ten_shapes(space: SearchSpace) -> None:
    """Figure 2's blocks at 224×224: twenty layers, ten different inputs and outputs."""
    shapes = layer_shapes(space, Deployment())
    assert [(s.in_channels, s.out_channels, s.stride, s.input_size[0]) for s in shapes] == [
        (16, 24, 2, 112), (24, 24, 1, 56), (24, 40, 2, 56), (40, 40, 1, 28), (40, 80, 2, 28),
        (80, 80, 1, 14), (80, 96, 1, 14), (96, 96, 1, 14), (96, 192, 2, 14), (192, 192, 1, 7),
    ]  # fmt: skip
    items = layer_items(space, Deployment())
    assert len({item.key for item in items}) == len(items) == 120


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=["classification", "detection"])
def test_parts_sum_to_the_whole(
    small_space: SearchSpace, deployment: Deployment, rng: random.Random
) -> None:
    """Parameters and multiply-accumulates of a network are those of its items."""
    layers = {item.key: item for item in layer_items(small_space, deployment)}
    choices = small_space.sample(rng)
    shapes = {
        (s.in_channels, s.out_channels, s.stride): s for s in layer_shapes(small_space, deployment)
    }
    parts = constant_items(small_space, deployment)
    for layer, choice in zip(small_space.layers, choices, strict=True):
        if choice is not None:
            shape = shapes[layer.in_channels, layer.out_channels, layer.stride]
            parts.append(layers[shape.key(small_space.choice_type(choice))])
    whole = network_item(small_space.architecture(choices, "whole"), deployment)
    for part in parts:
        with torch.no_grad():
            part.build().eval()(*part.inputs())
    assert sum(count_parameters(part.build()) for part in parts) == count_parameters(whole.build())
    macs = sum(count_macs(part.build(), *part.shapes) for part in parts)
    assert macs == count_macs(whole.build(), *whole.shapes)


def test_a_detector_pads_to_multiples_of_32() -> None:
    assert Deployment("detection", (800, 1333)).padded_size == (800, 1344)
    assert Deployment("classification", (100, 90)).padded_size == (100, 90)


def test_random_networks(space: SearchSpace) -> None:
    first = random_networks(space, 20, seed=3)
    assert list(first) == list(random_networks(space, 20, seed=3))
    assert [("-0." in types) for types in first] == [True, False] * 10
    other = random_networks(space, 20, seed=3, exclude=list(first)[:5])
    assert not set(other) & set(list(first)[:5])
    for types, architecture in first.items():
        assert type_names(space, space.choices_of(architecture)) == types


def test_a_space_with_too_few_networks_is_named() -> None:
    small = SearchSpace.load("digits_small")
    assert len(random_networks(small, 60, seed=0)) == 60
    with pytest.raises(UserError, match="'digits_small' has fewer than 81 networks"):
        random_networks(small, 81, seed=0)
