"""Which channels of a block matter most: the first half has to be the good half."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from backbones.blocks import ConvNormAct, MBConv, SqueezeExcite

_QUANTILES = 255


def channel_order(block: MBConv) -> Tensor:
    """(C,) indices of the expanded channels, the most important first.

    Args:
        block: with batch norms.
    """
    return channel_importance(block).argsort(descending=True, stable=True)


def channel_importance(block: MBConv) -> Tensor:
    """(C,) importance of the expanded channels.

    It is the energy of what a channel adds to the block's output: the energy of its column of the
    projection, scaled as the last norm does, times the variance of its activation. Behind a batch
    norm a channel is γz + β with z of unit variance; z is taken as normal, so that no images are
    needed.

    Args:
        block: with batch norms.
    """
    return input_energy(block.project) * activation_variance(block.depthwise)


def input_energy(layer: ConvNormAct) -> Tensor:
    """(C_in,) energy of what an input of unit variance adds behind a layer's norm.

    Args:
        layer: of one group, with a batch norm.
    """
    norm = cast(nn.BatchNorm2d, layer.norm)
    assert norm.running_var is not None
    output = norm.weight.square() / (norm.running_var + norm.eps)
    return output @ layer.conv.weight.square().sum((2, 3))


def activation_variance(layer: ConvNormAct) -> Tensor:
    """(C,) variance of a layer's activation, of normal input behind its batch norm."""
    levels = (torch.arange(_QUANTILES) + 0.5) / _QUANTILES
    normal = torch.special.ndtri(levels)[:, None]  # (Q, 1)
    norm = cast(nn.BatchNorm2d, layer.norm)
    activated: Tensor = layer.act(normal * norm.weight + norm.bias)
    return activated.var(0)


def squeeze_order(path: SqueezeExcite) -> Tensor:
    """(Q,) indices of the squeeze channels, those with the largest weights first."""
    reduce, expand = path.reduce.weight.flatten(1), path.expand.weight.flatten(1)
    energy = reduce.square().sum(1) * expand.square().sum(0)
    return energy.argsort(descending=True, stable=True)
