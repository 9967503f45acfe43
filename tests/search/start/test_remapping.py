"""A supernet started from a network is that network, whatever it could become."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

from backbones import Architecture, LayerSpec, UserError, list_models, load_architecture
from backbones.blocks import SqueezeExcite
from backbones.network import build_classifier
from backbones.weights import save_checkpoint
from search.space import Candidate, Choice
from search.start.around import Options, space_around
from search.start.remapping import remap, start_supernet
from search.start.seed import Seed
from search.supernets.export import export_network, exported_state
from search.supernets.multi_path import MultiPathSupernet
from search.supernets.single_path import Supernet
from tests.search.start.conftest import Started, random_network, started, tiny_network

PLAIN = Options()
RICH = Options((3, 5, 7), (1, 4, 7), (0, 0.25, 0.5), 1)
"""Kernels around those of every network, expansions between and beyond them, SE and depth."""

NAMES = [name for name in list_models() if name != "fbnet_b"]
WIDER = Options(PLAIN.kernel_sizes, PLAIN.expansions, PLAIN.se_ratios, 1)


@torch.no_grad()
def outputs(model: Supernet, choices: list[Choice], images: Tensor) -> list[Tensor]:
    with model.using(choices):
        return [*model.forward_intermediates(images), model(images)]


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference over the largest value, of all outputs."""
    assert len(found) == len(expected)
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)
    )


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(1, 3, 64, 47, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def expected_outputs(started: Started, images: Tensor) -> list[Tensor]:
    network = started[2]
    maps = [*network.forward_intermediates(images), network(images)]
    assert all(value.std() > 1e-3 for value in maps)
    return maps


@pytest.mark.parametrize("options", [PLAIN, WIDER, RICH], ids=["plain", "deeper", "rich"])
@pytest.mark.parametrize("name", NAMES)
def test_the_start_is_the_network(
    start: Callable[[str, Options], Started], name: str, options: Options, images: Tensor
) -> None:
    """Maps and logits of the fixed network with the same weights, and of its slice."""
    begun = supernet, seed, _ = start(name, options)
    expected = expected_outputs(begun, images)
    assert distance(outputs(supernet, list(seed.choices), images), expected) < 1e-5
    architecture = seed.space.architecture(seed.choices, name)
    sliced = export_network(supernet, seed.choices, architecture)
    with torch.no_grad():
        found = [*sliced.forward_intermediates(images), sliced(images)]
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize("name", ["efficientnet_lite0", "fbnet_c", "mobilenetv3_large_100"])
def test_further_layers_are_identities(
    start: Callable[[str, Options], Started], name: str, images: Tensor
) -> None:
    """Used with any of their candidates, and all at once, they change nothing."""
    begun = supernet, seed, _ = start(name, WIDER)
    expected = expected_outputs(begun, images)
    skipped = [index for index, choice in enumerate(seed.choices) if choice is None]
    assert len(skipped) >= len(seed.space.stages)
    for candidate in (seed.space.candidates[0], seed.space.candidates[-1]):
        choices = [choice or candidate for choice in seed.choices]
        assert distance(outputs(supernet, choices, images), expected) < 1e-5


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mnasnet_a1", "mobilenetv3_large_100"])
def test_growth_changes_nothing(
    start: Callable[[str, Options], Started], name: str, images: Tensor
) -> None:
    """Larger kernels have rings of 0, further channels project with 0, SE paths squeeze no more."""
    begun = supernet, seed, _ = start(name, RICH)
    expected = expected_outputs(begun, images)
    kernels, expansions = (len(o) - 1 for o in (seed.space.kernel_sizes, seed.space.expansions))
    grown = [c and Candidate(kernels, c.expansion, c.se) for c in seed.choices]
    assert grown != list(seed.choices)
    assert distance(outputs(supernet, grown, images), expected) < 1e-5
    wide = [c and Candidate(c.kernel, expansions, c.se) for c in seed.choices]
    assert wide != list(seed.choices)
    assert distance(outputs(supernet, wide, images), expected) < 1e-5
    ratios = len(seed.space.se_ratios) - 1
    squeezed = [c and Candidate(kernels, expansions, c.se and ratios) for c in seed.choices]
    assert distance(outputs(supernet, squeezed, images), expected) < 1e-5


def test_smaller_options_change_something(
    start: Callable[[str, Options], Started], images: Tensor
) -> None:
    """So that the comparisons above can fail."""
    begun = supernet, seed, _ = start("efficientnet_lite0", RICH)
    expected = expected_outputs(begun, images)
    small = [c and Candidate(0, 0, c.se) for c in seed.choices]
    assert distance(outputs(supernet, small, images), expected) > 1e-2


@pytest.mark.parametrize(("gate", "opening"), [("sigmoid", 0.982014), ("hard_sigmoid", 1.0)])
def test_further_se_paths_are_open(gate: str, opening: float, images: Tensor) -> None:
    """Every channel is scaled by σ(4), or by the hard sigmoid of 3, which is 1."""
    base = tiny_network()
    options = Options((3, 5), (3, 6), (0, 0.25))
    space, choices = space_around(base, options)
    space = dataclasses.replace(space, se_gate=gate)
    network = random_network(base)
    seed = Seed(base, space, tuple(choices), "random weights")
    supernet = Supernet(space, 7).eval()
    remap(supernet, seed, network.state_dict())
    for layer, choice in zip(supernet.superkernels, choices, strict=True):
        assert choice is not None
        path = cast(SqueezeExcite, layer.se)
        with torch.no_grad():
            pooled = torch.rand(2, layer.project.conv.in_channels, 3, 3) + 0.5
            scale = path(pooled) / pooled
        assert torch.allclose(scale, torch.full_like(scale, opening), atol=1e-5)
    opened = [c and Candidate(c.kernel, c.expansion, 1) for c in choices]
    with torch.no_grad():
        expected = [*network.forward_intermediates(images), network(images)]
    away = distance(outputs(supernet, opened, images), expected)
    assert away < 1e-5 if gate == "hard_sigmoid" else 1e-4 < away < 0.2


def test_thresholds_begin_at_the_network(start: Callable[[str, Options], Started]) -> None:
    supernet, seed, _ = start("mnasnet_a1", RICH)
    supernet.reset_thresholds(seed.choices)
    assert supernet.choices() == list(seed.choices)
    assert [d.choice() for d in supernet.relaxed_decisions()] == list(seed.choices)


def test_another_number_of_classes_keeps_head_and_a_fresh_classifier() -> None:
    base = tiny_network()
    network = random_network(base, num_classes=7)
    space, choices = space_around(base, PLAIN)
    seed = Seed(base, space, tuple(choices), "random weights")
    supernet = Supernet(space, 3)
    before = cast(torch.nn.Linear, supernet.classifier).weight.clone()
    remap(supernet, seed, network.state_dict())
    assert torch.equal(cast(torch.nn.Linear, supernet.classifier).weight, before)
    assert torch.equal(supernet.head.conv.weight, network.head.conv.weight)


def test_weights_without_head_and_classifier() -> None:
    """As a detector's backbone leaves them."""
    base = tiny_network()
    network = random_network(base)
    space, choices = space_around(base, PLAIN)
    seed = Seed(base, space, tuple(choices), "random weights")
    supernet = Supernet(space, 0)
    before = supernet.head.conv.weight.clone()
    trunk = {k: v for k, v in network.state_dict().items() if k.startswith(("stem.", "layers."))}
    remap(supernet, seed, trunk)
    assert torch.equal(supernet.head.conv.weight, before)
    state = exported_state(supernet, choices)
    x = torch.randn(1, 3, 32, 32)
    sliced = build_classifier(base, 0).eval()
    sliced.load_state_dict({**sliced.state_dict(), **state})
    with torch.no_grad():
        found, expected = sliced.forward_intermediates(x), network.forward_intermediates(x)
    assert distance(found, expected) < 1e-5


def refused(supernet: object, seed: Seed, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        start_supernet(supernet, seed)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_what_cannot_be_started(tmp_path: object) -> None:
    base = tiny_network()
    file = f"{tmp_path}/weights.pth"
    other = dataclasses.replace(base, layers=(*base.layers[:-1], LayerSpec(40, stride=2)))
    save_checkpoint(file, {"model": random_network(other).state_dict()})
    space, choices = space_around(base, PLAIN)
    seed = Seed(base, space, tuple(choices), file)
    refused(Supernet(space, 7), seed, r"weights.pth' belongs to another architecture")
    refused(
        MultiPathSupernet(space, 7), seed, r"SEARCH.START is 'tiny', but only supernets of one path"
    )
    missing = dataclasses.replace(seed, weights=f"{tmp_path}/none.pth")
    refused(Supernet(space, 7), missing, "no checkpoint at")


def test_a_small_network_with_skipped_layers(images: Tensor) -> None:
    """Skipped layers of the start itself are identities when they are used."""
    base = tiny_network()
    skipping = dataclasses.replace(
        base, layers=(*base.layers[:3], LayerSpec(12, op="skip"), *base.layers[3:])
    )
    begun = supernet, seed, _ = started(skipping, PLAIN)
    expected = expected_outputs(begun, images)
    assert seed.choices[2] is None
    used = [c or Candidate(1, 1, 0) for c in seed.choices]
    for choices in (list(seed.choices), used):
        assert distance(outputs(supernet, choices, images), expected) < 1e-5


def test_fbnet_b_is_refused() -> None:
    architecture: Architecture = load_architecture("fbnet_b")
    with pytest.raises(UserError, match=r"'fbnet_b' cannot .* its layer \d+ is 'ds'") as caught:
        space_around(architecture, PLAIN)
    assert "\n" not in str(caught.value)
