"""The order of channels, against sampled activations; and what the better half is worth."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from backbones import LayerSpec
from backbones.blocks import MBConv, SqueezeExcite
from backbones.network import batch_norm
from search.start.ordering import activation_variance, channel_order, squeeze_order
from tests.search.conftest import randomize
from tests.search.start.conftest import tiny_network


def block(activation: str = "relu6", se_ratio: float = 0, seed: int = 0) -> MBConv:
    """Of 16 channels, expanded to 96."""
    torch.manual_seed(seed)
    spec = LayerSpec(16, expansion=6, activation=activation, se_ratio=se_ratio)
    made = MBConv(16, spec, batch_norm(tiny_network()))
    with torch.no_grad():
        made.project.conv.weight.mul_(torch.rand(96)[None, :, None, None] * 3)
    randomize(made)
    return made.eval()


def sampled_variance(made: MBConv, count: int = 40_000) -> Tensor:
    """(C,) variance of the activation, of normal numbers behind the batch norm."""
    generator = torch.Generator().manual_seed(3)
    norm = cast(torch.nn.BatchNorm2d, made.depthwise.norm)
    normal = torch.randn(count, len(norm.weight), generator=generator)
    with torch.no_grad():
        activated: Tensor = made.depthwise.act(normal * norm.weight + norm.bias)
    return activated.var(0)


@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_swish"])
def test_variance_is_that_of_samples(activation: str) -> None:
    made = block(activation)
    with torch.no_grad():
        torch.testing.assert_close(
            activation_variance(made.depthwise), sampled_variance(made), rtol=0.1, atol=2e-3
        )


@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_swish"])
def test_order_is_that_of_sampled_energies(activation: str) -> None:
    """Σ over outputs of the variance of what a channel adds, one channel after the other."""
    made = block(activation)
    norm = cast(torch.nn.BatchNorm2d, made.project.norm)
    assert norm.running_var is not None
    variance = sampled_variance(made)
    energy = torch.zeros(96)
    for channel in range(96):
        for output in range(16):
            scale = norm.weight[output] / (norm.running_var[output] + norm.eps).sqrt()
            weight = made.project.conv.weight[output, channel, 0, 0]
            energy[channel] += (scale * weight).detach() ** 2 * variance[channel]
    order = channel_order(made)
    assert sorted(order.tolist()) == list(range(96))
    found = energy[order]
    assert (found[1:] <= found[:-1] * 1.1 + 1e-3 * found[0]).all()  # but for the sampling
    assert found[0] > 5 * found[48] > 0


def output_without(made: MBConv, channels: Tensor, x: Tensor) -> Tensor:
    """The block's output where the projection has lost channels."""
    weight = made.project.conv.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:, channels] = 0
        out: Tensor = made(x)
        weight.copy_(kept)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_the_first_half_is_the_better_half(seed: int) -> None:
    """Without the second half, less of the output's variation is lost than without the first."""
    made = block(seed=seed)
    x = torch.randn(8, 16, 12, 12)
    # so that the channels are as the norms expect them
    made.train()
    with torch.no_grad():
        for _ in range(60):
            made(x)
        made.eval()
        whole = made(x)
    order = channel_order(made)
    lost = []
    for half in (order[:48], order[48:]):
        difference = output_without(made, half, x) - whole
        lost.append(float(difference.var((0, 2, 3)).sum()))
    first, second = lost
    assert second < 0.5 * first


def test_squeeze_channels_by_their_weights() -> None:
    made = block(se_ratio=0.25)
    path = cast(SqueezeExcite, made.se)
    order = squeeze_order(path)
    energies = [
        float(path.reduce.weight[i].detach().norm() * path.expand.weight[:, i].detach().norm())
        for i in order.tolist()
    ]
    assert energies == sorted(energies, reverse=True)
    assert len(set(order.tolist())) == 24
