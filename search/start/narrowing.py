"""A network of fewer channels everywhere, with the most important channels of a trained one.

Unlike the slices of a supernet, whose layers keep their shapes, the channels between the layers
are cut as well. Blocks that are added up share theirs, so there is one order of channels for every
run of residual blocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from backbones.architecture import Architecture, LayerSpec, StemSpec
from backbones.blocks import ConvNormAct, MBConv, SqueezeExcite
from backbones.errors import UserError
from backbones.network import Classifier, Trunk, build_classifier, build_feature_extractor
from backbones.weights import StateDict, load_weights
from search.start.ordering import (
    activation_variance,
    channel_importance,
    channel_order,
    input_energy,
    squeeze_order,
)
from search.start.remapping import fill_norm

_Spec = TypeVar("_Spec", StemSpec, LayerSpec)


def narrowed(architecture: Architecture, width_mult: float) -> Architecture:
    """The network with the trunk's channels multiplied (Fig. 7), and nowhere more than it has.

    Its head stays. Channels are multiples of 8, which can be more than those of a layer that has no
    such number.

    Raises:
        UserError: if the factor is above 1, or so small that layers of different widths become
            alike and would be added up.
    """
    if width_mult > 1:
        raise UserError(f"the width multiplier is {width_mult:g}; expected at most 1")
    scaled = architecture.scaled(width_mult)
    layers = tuple(map(_at_most, scaled.layers, architecture.layers))
    stem = _at_most(scaled.stem, architecture.stem)
    scaled = dataclasses.replace(scaled, stem=stem, layers=layers, head=architecture.head)
    if _residuals(scaled) != _residuals(architecture):
        raise UserError(
            f"the width multiplier is {width_mult:g}, at which layers of '{architecture.name}' "
            "with different channels have the same; expected a larger one"
        )
    origin = {"narrowed_from": architecture.name, "width_mult": width_mult}
    return dataclasses.replace(scaled, provenance=origin)


@torch.no_grad()
def narrow(
    architecture: Architecture, state: Mapping[str, Tensor], width_mult: float, where: str
) -> tuple[Architecture, StateDict]:
    """The most important channels of a network's trunk.

    Batch-norm statistics stay those of the channels; they are to be estimated anew, as a layer
    does not see all that it saw.

    Args:
        architecture: of the network.
        state: its tensors, by our names.
        width_mult: factor on the channels, at most 1.
        where: the tensors come from, for messages.

    Returns:
        The architecture, and the tensors of its trunk.

    Raises:
        UserError: if the tensors are of another network, or as :func:`narrowed` does.
    """
    ours = narrowed(architecture, width_mult)
    network = build_classifier(architecture, 0)
    headless = "head.conv.weight" not in state
    load_weights(network, state, where, ("classifier.", "hidden.", *(["head."] * headless)))
    small = build_feature_extractor(ours)
    _cut_trunk(small, network, stream_orders(network, with_head=not headless))
    return ours, small.state_dict()


@torch.no_grad()
def narrow_classifier(
    architecture: Architecture, state: Mapping[str, Tensor], width_mult: float, where: str
) -> tuple[Architecture, StateDict]:
    """As :func:`narrow`, with head and classifier, which keep their channels."""
    ours = narrowed(architecture, width_mult)
    classes = len(state["classifier.weight"])
    network, small = (build_classifier(each, classes) for each in (architecture, ours))
    load_weights(network, state, where)
    kept = _cut_trunk(small, network, stream_orders(network))
    _cut(small.head, network.head, slice(None), kept)
    for name in ("hidden", "classifier"):
        small.get_submodule(name).load_state_dict(network.get_submodule(name).state_dict())
    return ours, small.state_dict()


@torch.no_grad()
def stream_orders(network: Classifier, with_head: bool = True) -> list[Tensor]:
    """(C,) indices of the channels behind the stem and behind every layer, best first.

    A channel's importance is its variance times the energy of what it adds, behind their norms, to
    all that read it. The variance is that of the blocks that are added up in it, taken as
    independent: γ² behind a projection's norm.

    Args:
        network: with batch norms.
        with_head: whether the head reads the last channels; untrained, it says nothing.
    """
    streams = _streams(network.architecture)
    count = streams[-1] + 1
    variance: list[Tensor | float] = [0.0] * count
    read: list[Tensor | float] = [0.0] * count
    added: list[Tensor | float] = [0.0] * count
    variance[0] = activation_variance(network.stem)
    for before, behind, block in zip(streams, streams[1:], network.layers, strict=False):
        if not isinstance(block, MBConv):
            continue
        norm = cast(nn.BatchNorm2d, block.project.norm)
        variance[behind] = variance[behind] + norm.weight.square()
        if isinstance(block.expand, ConvNormAct):
            read[before] = read[before] + input_energy(block.expand)
        else:  # its depthwise channels are those of the input
            added[before] = added[before] + channel_importance(block)
    if with_head:
        read[-1] = read[-1] + input_energy(network.head)
    elif isinstance(read[-1], float) and isinstance(added[-1], float):
        read[-1] = 1.0  # nothing reads them: the variance alone tells
    importance = [
        torch.as_tensor(width * energy + more)
        for width, energy, more in zip(variance, read, added, strict=True)
    ]
    return [importance[stream].argsort(descending=True, stable=True) for stream in streams]


def _at_most(ours: _Spec, theirs: _Spec) -> _Spec:
    channels = min(ours.out_channels, theirs.out_channels)
    return dataclasses.replace(ours, out_channels=channels)


def _streams(architecture: Architecture) -> list[int]:
    """Which layers share channels: a number for the stem's output and each layer's."""
    streams = [0]
    for same in _residuals(architecture):
        streams.append(streams[-1] + (not same))
    return streams


def _residuals(architecture: Architecture) -> list[bool]:
    """Whether a layer's input is added to its output, or is its output."""
    pairs = zip(architecture.in_channels, architecture.layers, strict=True)
    return [layer.stride == 1 and channels == layer.out_channels for channels, layer in pairs]


def _cut_trunk(ours: Trunk, theirs: Trunk, orders: Sequence[Tensor]) -> Tensor:
    """Fills stem and layers; returns the channels kept of the last one."""
    kept = orders[0][: ours.stem.conv.out_channels]
    _cut(ours.stem, theirs.stem, kept, slice(None))
    for layer, block, order in zip(ours.layers, theirs.layers, orders[1:], strict=True):
        before, kept = kept, order
        if isinstance(layer, MBConv):
            kept = order[: layer.project.conv.out_channels]
            _cut_block(layer, cast(MBConv, block), before, kept)
        else:  # the identity
            kept = before
    return kept


def _cut_block(ours: MBConv, theirs: MBConv, before: Tensor, behind: Tensor) -> None:
    channels = before
    if isinstance(ours.expand, ConvNormAct):
        channels = channel_order(theirs)[: ours.expand.conv.out_channels]
        _cut(ours.expand, cast(ConvNormAct, theirs.expand), channels, before)
    _cut(ours.depthwise, theirs.depthwise, channels, slice(None))
    if isinstance(ours.se, SqueezeExcite):
        _cut_se(ours.se, cast(SqueezeExcite, theirs.se), channels)
    _cut(ours.project, theirs.project, behind, channels)


def _cut(
    ours: ConvNormAct,
    theirs: ConvNormAct,
    outputs: Tensor | slice,
    inputs: Tensor | slice,
) -> None:
    ours.conv.weight.copy_(theirs.conv.weight[outputs][:, inputs])
    fill_norm(ours.norm, theirs.norm, outputs)


def _cut_se(ours: SqueezeExcite, theirs: SqueezeExcite, channels: Tensor) -> None:
    squeezed: Sequence[int] | Tensor = squeeze_order(theirs)[: ours.reduce.out_channels]
    ours.reduce.weight.copy_(theirs.reduce.weight[squeezed][:, channels])
    ours.expand.weight.copy_(theirs.expand.weight[channels][:, squeezed])
    cast(Tensor, ours.reduce.bias).copy_(cast(Tensor, theirs.reduce.bias)[squeezed])
    cast(Tensor, ours.expand.bias).copy_(cast(Tensor, theirs.expand.bias)[channels])
