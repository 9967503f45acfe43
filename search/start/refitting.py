"""The layers of a network that was cut out of a supernet, fitted to what the start's compute.

A layer has lost channels, and those that are left can partly stand in for them; others were
dropped, and those behind can partly make up for that. How, is a linear question: behind its
depthwise convolution a block is a 1×1 convolution and a batch norm, and the best of these for given
maps is a least-squares fit, as He et al. (arXiv 1707.06168) reconstruct pruned layers. From the
first layer that is not the start's on, layer by layer, every block is fitted on what the layers
before make of training images to the map that the start has in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from backbones.architecture import Architecture
from backbones.blocks import BLOCKS, ConvNormAct, MBConv
from detection.engine.replicas import mean_over_processes

_RIDGES = tuple(10.0**power for power in range(3, -4, -1))
"""What can hold a fit to the weights there are, over the mean variance of the channels."""

_LEAST = 1e-12
"""Of that variance: dead channels have none."""

_POSITIONS = 32
"""Of a map that a fit sees, the same of every image: neighbours say nearly the same."""


class Layered(Protocol):
    """A network's stem and layers, or a backbone's."""

    architecture: Architecture
    stem: ConvNormAct
    layers: nn.ModuleList


Which = Callable[[Architecture, Architecture], list[int]]
"""From a network and the start to the indices of the layers that are fitted."""


def changed_layers(network: Architecture, start: Architecture) -> list[int]:
    """The blocks that a network has in the place of other blocks of the start."""
    shared = _shared_blocks(network, start)
    return [index for index in shared if network.layers[index] != start.layers[index]]


def layers_to_fit(network: Architecture, start: Architecture) -> list[int]:
    """The blocks that a network and the start have, from the first layer that differs on."""
    differs = [own != other for own, other in zip(network.layers, start.layers, strict=True)]
    return [index for index in _shared_blocks(network, start) if any(differs[: index + 1])]


def _shared_blocks(network: Architecture, start: Architecture) -> list[int]:
    """The layers that are blocks in both."""
    pairs = enumerate(zip(network.layers, start.layers, strict=True))
    return [i for i, (own, other) in pairs if BLOCKS[own.op] is BLOCKS[other.op] is MBConv]


def refit(network: Layered, start: Layered, inputs: Sequence[Tensor]) -> None:
    """Fits a network to the start from the first change on; both are left in training mode.

    Args:
        network: its batch-norm statistics have to be estimated afterwards.
        start: of the same space; its statistics are changed.
        inputs: batches (N, 3, H, W), the same number in every process.
    """
    fitted = layers_to_fit(network.architecture, start.architecture)
    fit_layers(network, inputs, layer_rows(start, inputs), fitted)


@torch.no_grad()
def fit_layers(
    network: Layered,
    inputs: Sequence[Tensor],
    rows: Mapping[int, Sequence[Tensor]],
    fitted: Sequence[int],
) -> None:
    """Fits layers of a network, which is left in training mode, to the start's.

    Args:
        network: its batch-norm statistics have to be estimated afterwards.
        inputs: batches (N, 3, H, W), the same number in every process.
        rows: of the start's layers on these batches (:func:`layer_rows`).
        fitted: indices of the layers.
    """
    maps = list(inputs)
    for index in range(-1, max(fitted, default=-2) + 1):
        layer = network.layers[index] if index >= 0 else network.stem
        if index in fitted:
            assert isinstance(layer, MBConv)
            fit_projection(layer, maps, rows[index])
        maps = [layer.train()(batch) for batch in maps]


@torch.no_grad()
def layer_rows(start: Layered, inputs: Sequence[Tensor]) -> Mapping[int, Sequence[Tensor]]:
    """What :func:`fit_projection` wants in the place of every layer of the start.

    Args:
        start: left in training mode; its statistics are changed.
        inputs: as of :func:`refit`.
    """
    found = {}
    maps = [start.stem.train()(batch) for batch in inputs]
    for index, layer in enumerate(start.layers):
        maps = [layer.train()(batch) for batch in maps]
        found[index] = [rows_of(batch) for batch in maps]
    return found


@torch.no_grad()
def fit_projection(block: MBConv, inputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Fits projection and last norm of a block by ridge regression to maps wanted behind it.

    The ridge holds the fit to the weights there are; how strong it is, two-fold cross-validation
    over batches decides. The block is left in training mode, and computes the fit in it. Rows of
    the projection keep their length, as learning rates and weight decay suit it.

    Args:
        block: with batch norms; its other layers stay.
        inputs: two or more batches (N, C_in, H, W), the same number in every process.
        wanted: of every batch, the rows (R, C_out) of the map behind the block, the residual
            included.
    """
    project, norm = block.project.conv.weight, block.project.norm
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    products = _products(block.train(), inputs, wanted)
    whole, channels = _Moments.of(products), project.shape[1]
    weight = project[:, :, 0, 0].cpu().double()
    now = weight * (norm.weight.cpu().double() / whole.deviation(weight, norm.eps))[:, None]
    fit = whole.fit(now, _best_ridge(products, now))
    scale = _length(weight) / _length(fit)
    scaled = fit * scale[:, None]
    deviation = whole.deviation(scaled, norm.eps)
    project.copy_(scaled[:, :, None, None])
    norm.weight.copy_(deviation / scale)
    norm.bias.copy_(whole.means[channels:])
    norm.running_mean.copy_(scaled @ whole.means[:channels])
    norm.running_var.copy_(deviation.square() - norm.eps)


@dataclass(frozen=True)
class _Moments:
    """What a fit has to know of C channels, and of the C_out maps that they are to add up to.

    Attributes:
        means: (C + C_out,) of both.
        variance: (C, C) of the channels.
        covariance: (C, C_out) of channels with maps.
    """

    means: Tensor
    variance: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, products: Sequence[Tensor]) -> _Moments:
        """Of the mean products of batches (:func:`_products`), which weigh the same."""
        mean = torch.stack(list(products)).mean(0)
        means, channels = mean[-1], len(mean) - 1
        centred = mean[:-1] - means[:channels, None] * means
        return cls(means, centred[:, :channels], centred[:, channels:])

    def fit(self, now: Tensor, ridge: float) -> Tensor:
        """(C_out, C) weights of the least squares that a ridge holds to ``now``."""
        held = ridge * self.variance.diagonal().mean().clamp(min=_LEAST)
        missing = self.covariance - self.variance @ now.T
        factor = torch.linalg.cholesky(self.variance + held * torch.eye(len(missing)).to(now))
        return now + torch.cholesky_solve(missing, factor).T

    def error(self, weight: Tensor) -> Tensor:
        """() mean square of what weights (C_out, C) miss, less that of weights 0."""
        return (weight * (weight @ self.variance - 2 * self.covariance.T)).sum()

    def deviation(self, weight: Tensor, eps: float) -> Tensor:
        """(C_out,) by which a batch norm divides what weights (C_out, C) make of the channels."""
        return (((weight @ self.variance) * weight).sum(1).clamp(min=0) + eps).sqrt()


def _products(block: MBConv, inputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[Tensor]:
    """(C + 1, C + C_out) of every batch: means of channels and 1 times channels and wanted maps.

    They are means over processes, in double precision and on the CPU, as all that is made of them.
    """
    found = []
    for maps, rows in zip(inputs, wanted, strict=True):
        channels = rows_of(block.se(block.depthwise(block.expand(maps)))).float()
        added = rows - rows_of(maps) if block.residual else rows
        left = torch.cat([channels, channels.new_ones(len(channels), 1)], 1)
        found.append(left.T @ torch.cat([channels, added.float()], 1) / len(left))
    return list(mean_over_processes(torch.stack(found)).cpu().double())


def _best_ridge(products: Sequence[Tensor], now: Tensor) -> float:
    """The ridge whose fits to one half of the batches miss the least of the other half.

    Ridges are tried from the strongest on, as long as errors fall.
    """
    half = len(products) // 2
    one, other = _Moments.of(products[:half]), _Moments.of(products[half:])
    best, least = _RIDGES[0], math.inf
    for ridge in _RIDGES:
        error = float(other.error(one.fit(now, ridge)) + one.error(other.fit(now, ridge)))
        if error >= least:
            break
        best, least = ridge, error
    return best


def rows_of(maps: Tensor) -> Tensor:
    """(N, C, H, W) → (N · P, C): P positions that are drawn once for maps of this size."""
    size = maps.shape[2] * maps.shape[3]
    positions = torch.randperm(size, generator=torch.Generator().manual_seed(size))[:_POSITIONS]
    return maps.flatten(2)[:, :, positions.to(maps.device)].transpose(1, 2).flatten(0, 1)


def _length(weight: Tensor) -> Tensor:
    """(C_out,) length of every row; 1 where that is 0."""
    length = weight.norm(dim=1)
    return torch.where(length > 0, length, 1)
