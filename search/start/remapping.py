"""The weights of a network, put where a supernet has them (FNA, arXiv 2001.02525).

Forced to the network's own choices, the supernet computes what the network does. What it has
beyond the network changes nothing until it is trained: outer rings of kernels are 0, further
channels are copies that project with weight 0, and further layers are identities; further SE paths
begin with open gates.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.blocks import ConvNormAct, MBConv, SqueezeExcite
from backbones.errors import UserError
from backbones.network import build_classifier
from backbones.published import load_state
from backbones.weights import load_weights
from search.start.ordering import channel_order, squeeze_order
from search.start.seed import Seed
from search.supernets.one_shot import OneShot
from search.supernets.single_path import Supernet
from search.supernets.superkernel import SuperMBConv

logger = logging.getLogger(__name__)

OPEN_GATE = {"sigmoid": 4.0, "hard_sigmoid": 3.0}
"""Bias that opens an SE gate: σ(4) is 0.982, and the hard one is 1 at 3."""

_AROUND_LAYERS = ("stem", "head", "hidden", "classifier")


def start_supernet(supernet: OneShot, seed: Seed) -> None:
    """Fills a supernet with the weights of ``seed``, and lets its decisions begin there.

    Args:
        supernet: freshly built, of the seed's space.
        seed: the network to start from.

    Raises:
        UserError: if its weights are not at hand or of another network, or the supernet is not a
            single path of the same widths with batch norms.
    """
    if not isinstance(supernet, Supernet):
        raise UserError(
            f"SEARCH.START is '{seed.architecture.name}', but only supernets of one path have the "
            "place of its weights; choose another SEARCH.FORMULATION, such as sensitivity"
        )
    if supernet.space.layers != seed.space.layers:
        raise UserError(
            f"SEARCH.START is '{seed.architecture.name}', whose weights fit no supernet of other "
            "widths; set SEARCH.WIDTH_MULT 1.0"
        )
    if not isinstance(supernet.stem.norm, _BatchNorm):
        raise UserError(
            f"SEARCH.START is '{seed.architecture.name}', whose batch norms fit no supernet with "
            "other norms; set MODEL.SPNAS.NORM BN or SyncBN"
        )
    remap(supernet, seed, load_state(seed.weights, seed.architecture))
    supernet.reset_thresholds(seed.choices)
    logger.info("The search starts from '%s', weights '%s'", seed.architecture.name, seed.weights)


@torch.no_grad()
def remap(supernet: Supernet, seed: Seed, state: Mapping[str, Tensor]) -> None:
    """Fills a supernet with the weights of a network of its space, best channels first.

    A classifier of another number of classes is left as it is; so are classifier and head where
    the weights are those of a backbone without them.

    Args:
        supernet: freshly built, with batch norms.
        seed: the network, of the supernet's space.
        state: its tensors, by our names.

    Raises:
        UserError: if the tensors are of another network.
    """
    network = build_classifier(seed.architecture, supernet.num_classes)
    own = network.state_dict().get("classifier.weight")
    theirs = state.get("classifier.weight")
    headless = "head.conv.weight" not in state
    ignore = ("head.", "hidden.") if headless else ()
    if own is None or theirs is None or own.shape != theirs.shape:
        ignore = (*ignore, "classifier.")
    load_weights(network, state, seed.weights, ignore)
    for name in _AROUND_LAYERS:
        if f"{name}." not in ignore:
            supernet.get_submodule(name).load_state_dict(network.get_submodule(name).state_dict())
    begin, end = len(supernet.space.first), len(supernet.space.last)
    layers, fixed = list(supernet.layers), list(network.layers)
    for index in (*range(begin), *range(-end, 0)):
        layers[index].load_state_dict(fixed[index].state_dict())
    blocks = (layer for layer in fixed[begin:] if isinstance(layer, MBConv))
    previous: MBConv | None = None
    for superkernel, choice in zip(supernet.superkernels, seed.choices, strict=True):
        if choice is not None:
            previous = next(blocks)
            _fill(superkernel, previous)
        else:
            _fill_identity(superkernel, previous)


def _fill(superkernel: SuperMBConv, block: MBConv) -> None:
    """The weights of a block in the place of those choices that it took."""
    order = channel_order(block)
    channels = superkernel.project.conv.in_channels
    # channels beyond the block's begin as copies of its best ones
    source = torch.tensor(list(itertools.islice(itertools.cycle(order.tolist()), channels)))
    _fill_conv(cast(ConvNormAct, superkernel.expand), cast(ConvNormAct, block.expand), source)
    _fill_depthwise(superkernel.depthwise, block.depthwise, source)
    project = superkernel.project.conv.weight
    project.zero_()
    project[:, : len(order)] = block.project.conv.weight[:, order]
    superkernel.project.norm.load_state_dict(block.project.norm.state_dict())
    if isinstance(superkernel.se, SqueezeExcite):
        _fill_se(superkernel, superkernel.se, block.se, source, len(order))


def _fill_identity(superkernel: SuperMBConv, previous: MBConv | None) -> None:
    """An identity when it is used: the block before it where that has the shape, scaled by 0."""
    layer = superkernel.layer
    if (
        previous is not None
        and previous.residual
        and (previous.project.conv.out_channels == layer.out_channels)
    ):
        _fill(superkernel, previous)
    norm = cast(nn.BatchNorm2d, superkernel.project.norm)
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)


def _fill_conv(ours: ConvNormAct, theirs: ConvNormAct, source: Tensor) -> None:
    ours.conv.weight.copy_(theirs.conv.weight[source])
    fill_norm(ours.norm, theirs.norm, source)


def _fill_depthwise(ours: ConvNormAct, theirs: ConvNormAct, source: Tensor) -> None:
    margin = (ours.conv.kernel_size[0] - theirs.conv.kernel_size[0]) // 2
    core = slice(margin, margin + theirs.conv.kernel_size[0])
    ours.conv.weight.zero_()
    ours.conv.weight[:, :, core, core] = theirs.conv.weight[source]
    fill_norm(ours.norm, theirs.norm, source)


def fill_norm(ours: nn.Module, theirs: nn.Module, source: Tensor | slice) -> None:
    """The channels ``source`` of a norm."""
    state = theirs.state_dict()
    ours.load_state_dict({k: v[source] if v.dim() else v for k, v in state.items()})


def _fill_se(
    superkernel: SuperMBConv, ours: SqueezeExcite, theirs: nn.Module, source: Tensor, used: int
) -> None:
    """An SE path, or an open gate where the block has none.

    Args:
        superkernel: whose SE path it is.
        ours: that path.
        theirs: of the block.
        source: of every channel, in the block.
        used: how many channels are the block's; copies add nothing to the squeeze.
    """
    bias, squeeze_bias = ours.expand.bias, ours.reduce.bias
    assert bias is not None
    assert squeeze_bias is not None
    if not isinstance(theirs, SqueezeExcite):
        nn.init.zeros_(ours.expand.weight)
        nn.init.constant_(bias, OPEN_GATE[superkernel.space.se_gate])
        return
    order = squeeze_order(theirs)
    ours.expand.weight.zero_()
    ours.expand.weight[:, : len(order)] = theirs.expand.weight[source][:, order]
    bias.copy_(cast(Tensor, theirs.expand.bias)[source])
    ours.reduce.weight[: len(order)] = theirs.reduce.weight[order][:, source]
    ours.reduce.weight[: len(order), used:] = 0
    squeeze_bias[: len(order)] = cast(Tensor, theirs.reduce.bias)[order]
