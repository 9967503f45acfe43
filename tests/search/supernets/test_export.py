"""Exported networks of spaces with other options and activations than the paper's."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest
import torch
from torch import nn

from backbones.architecture import Activation
from backbones.blocks import ConvNormAct, MBConv, SamePadding
from search.space import Choice, SearchSpace
from search.supernets.export import export_network
from search.supernets.multi_path import MultiPathSupernet
from search.supernets.one_shot import OneShot
from search.supernets.single_path import Supernet
from tests.search.conftest import randomize

MODULES: dict[Activation, type[nn.Module]] = {"relu6": nn.ReLU6, "hard_swish": nn.Hardswish}
SUPERNETS: list[Callable[[SearchSpace, int], OneShot]] = [Supernet, MultiPathSupernet]


def randomized(make: Callable[[SearchSpace, int], OneShot], space: SearchSpace) -> OneShot:
    torch.manual_seed(0)
    supernet = make(space, 5)
    randomize(supernet)
    return supernet.eval()


def disagreement(supernet: OneShot, choices: list[Choice], seed: int) -> float:
    """Largest difference of logits over their scale, on random images."""
    generator = torch.Generator().manual_seed(seed)
    images = 3 * torch.randn(1, 3, 32, 64, generator=generator)
    architecture = supernet.space.architecture(choices, "exported")
    network = export_network(supernet, choices, architecture)
    with torch.no_grad(), supernet.using(choices):
        ours, theirs = supernet(images), network(images)
    assert theirs.abs().max() > 1e-2
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("make", SUPERNETS)
def test_three_options_an_axis(
    make: Callable[[SearchSpace, int], OneShot], wide_space: SearchSpace, rng: random.Random
) -> None:
    """Every candidate of a strided and of a droppable layer, the other one drawn at random."""
    supernet = randomized(make, wide_space)
    options = [wide_space.choices(layer) for layer in wide_space.layers]
    assert [len(row) for row in options] == [27, 28]
    networks = [[first, rng.choice(options[1])] for first in options[0]]
    networks += [[rng.choice(options[0]), second] for second in options[1]]
    networks += [wide_space.sample(rng) for _ in range(10)]
    for seed, choices in enumerate(networks):
        assert disagreement(supernet, choices, seed) < 1e-5, choices


@pytest.mark.parametrize("make", SUPERNETS)
def test_a_network_is_a_copy(
    make: Callable[[SearchSpace, int], OneShot], wide_space: SearchSpace, rng: random.Random
) -> None:
    """With values of its own for everything, which can be trained and changed."""
    supernet = randomized(make, wide_space)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    choices = wide_space.sample(rng)
    network = export_network(supernet, choices, wide_space.architecture(choices, "copy"))
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        for value in network.state_dict().values():
            assert not value.is_meta and value.is_contiguous()
            value.fill_(7)
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_three_options_an_axis_under_thresholds(wide_space: SearchSpace) -> None:
    """Every choice is reached by thresholds, and eval mode runs as its network."""
    supernet = randomized(Supernet, wide_space)
    assert isinstance(supernet, Supernet)
    images = torch.randn(1, 3, 32, 64)
    for index, layer in enumerate(wide_space.layers):
        for choice in wide_space.choices(layer):
            used = [2, 2, 2] if choice is None else [choice.kernel, choice.expansion, choice.se]
            signs = [1.0 if step < level else -1.0 for level in used for step in range(2)]
            signs += [1.0 if choice else -1.0]
            supernet.thresholds.values.data[index] = torch.tensor(signs) * -100
            chosen = supernet.choices()
            assert chosen[index] == choice
            with torch.no_grad():
                decided = supernet(images)
                with supernet.using(chosen):
                    assert torch.equal(decided, supernet(images))


@pytest.mark.parametrize("make", SUPERNETS)
@pytest.mark.parametrize("activation", MODULES)
def test_spaces_of_other_activations(
    make: Callable[[SearchSpace, int], OneShot],
    wide_space: SearchSpace,
    rng: random.Random,
    activation: Activation,
) -> None:
    """Searchable layers have it, fixed ones keep theirs; all have the epsilon and the padding."""
    space = dataclasses.replace(
        wide_space, activation=activation, norm_eps=1e-2, padding="same", fixed_stem=True
    )
    supernet = randomized(make, space)
    networks = [space.sample(rng) for _ in range(5)]
    for seed, choices in enumerate(networks):
        assert disagreement(supernet, choices, seed) < 1e-5
    kept = [choice or space.candidates[-1] for choice in networks[0]]
    network = export_network(supernet, kept, space.architecture(kept, "kept"))
    for model in (supernet, network):
        begin, end = len(space.first), len(space.first) + len(space.layers)
        for index, layer in enumerate(model.layers):
            expected = MODULES[activation] if begin <= index < end else nn.ReLU
            blocks = [block for block in layer.modules() if isinstance(block, MBConv)]
            assert blocks
            for block in blocks:
                assert type(block.depthwise.act) is expected
                if isinstance(block.expand, nn.Sequential | nn.Identity):
                    continue
                assert type(block.expand.act) is expected
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        assert {norm.eps for norm in norms} == {1e-2}
        strided = [
            m for m in model.modules() if isinstance(m, ConvNormAct) and m.conv.stride[0] > 1
        ]
        assert strided and all(isinstance(module.pad, SamePadding) for module in strided)


def test_activations_make_a_difference(wide_space: SearchSpace) -> None:
    """The same weights give other logits: the activation is not a name alone."""
    images = 3 * torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    outputs = []
    for activation in ("relu", "relu6", "hard_swish"):
        supernet = randomized(Supernet, dataclasses.replace(wide_space, activation=activation))
        with torch.no_grad(), supernet.using([wide_space.candidates[-1]] * 2):
            outputs.append(supernet(images))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (outputs[first] - outputs[second]).abs().max() > 1e-3
