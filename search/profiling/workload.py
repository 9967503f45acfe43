"""Items to measure for a latency table: candidate layers, the constant part, whole networks."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from backbones.architecture import Activation, Architecture
from backbones.blocks import init_weights, make_layer, pad_same
from backbones.errors import UserError
from backbones.inference import Place
from backbones.latency import ConstantPart, LayerRuntimes, input_sizes
from backbones.layer_types import LayerType, parse_types
from backbones.network import batch_norm, build_classifier
from detection.deployment import PYRAMID_STRIDES, Deployment
from search.space import Candidate, Choice, SearchLayer, SearchSpace

Shape = tuple[int, int, int]

_DRAWS = 1000
"""Draws for every network found after which a space is taken to have no other."""


@dataclass(frozen=True)
class Item:
    """A module to measure, with the shapes of its inputs.

    Attributes:
        key: names it among all items, in a form that is also a file name.
        build: makes the module; can be sent to another process.
        shapes: (C, H, W) of every input.
        place: which part of a network it is.
    """

    key: str
    build: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]
    place: Place = "whole"

    def inputs(self) -> list[Tensor]:
        """Random maps (1, C, H, W)."""
        return [torch.randn(1, *shape) for shape in self.shapes]


@dataclass(frozen=True)
class LayerShape:
    """The input and output of a searchable layer: layers that share it are measured once.

    Its ``activation`` is the space's where it is None; one of two that differ in it alone is taken.
    """

    in_channels: int
    out_channels: int
    stride: int
    input_size: tuple[int, int]
    activation: Activation | None = dataclasses.field(default=None, compare=False)

    def key(self, candidate: LayerType) -> str:
        """The item's key for one candidate."""
        height, width = self.input_size
        return (
            f"layer_{self.in_channels}_{self.out_channels}_s{self.stride}_{height}x{width}_"
            f"{candidate}"
        )


def layer_shapes(space: SearchSpace, deployment: Deployment) -> list[LayerShape]:
    """Every different shape among the searchable layers, in their order."""
    sizes = input_sizes(space.largest(), deployment.padded_size)[len(space.first) :]
    shapes = [
        LayerShape(layer.in_channels, layer.out_channels, layer.stride, size, layer.activation)
        for layer, size in zip(space.layers, sizes, strict=False)
    ]
    return list(dict.fromkeys(shapes))


def layer_items(space: SearchSpace, deployment: Deployment) -> list[Item]:
    """Every candidate of every shape."""
    return [
        Item(
            shape.key(space.choice_type(candidate)),
            partial(_build_layer, space, shape, candidate),
            ((shape.in_channels, *shape.input_size),),
            "middle",
        )
        for shape in layer_shapes(space, deployment)
        for candidate in space.candidates
    ]


def constant_items(space: SearchSpace, deployment: Deployment) -> list[Item]:
    """The parts that are not searched: what comes before the searchable layers, and after."""
    largest, size = space.largest(), deployment.padded_size
    end = len(largest.layers) - len(space.last)
    channels = (*largest.in_channels, largest.layers[-1].out_channels)
    sizes = [*input_sizes(largest, size), _map_size(size, 32)]
    tail_shape = (channels[end], *sizes[end])
    items = [Item("stem", partial(_build_stem, space), ((3, *size),), "first")]
    if deployment.task == "classification" or space.last:
        tail = partial(_build_tail, space, deployment)
        place: Place = "last" if deployment.task == "classification" else "middle"
        items.append(Item("tail", tail, (tail_shape,), place))
    if deployment.task == "detection":
        taps = [largest.layers[index].out_channels for index in largest.feature_layers[1:]]
        maps = tuple(
            (count, *_map_size(size, stride))
            for count, stride in zip(taps, PYRAMID_STRIDES, strict=True)
        )
        items.append(Item("fpn", partial(deployment.pyramid, taps), maps, "last"))
    return items


def table_parts(
    space: SearchSpace,
    deployment: Deployment,
    constant: float,
    costs: Mapping[str, float],
    spreads: Mapping[str, float] | None = None,
) -> tuple[ConstantPart, tuple[LayerRuntimes, ...]]:
    """The constant part of a table, and a row for every shape.

    Args:
        space: the search space.
        deployment: what its networks are part of.
        constant: cost of everything that is not searched.
        costs: of every item of :func:`layer_items`, by key.
        spreads: of them, where they were measured.
    """
    detection = deployment.task == "detection"
    part = ConstantPart(
        constant,
        space.stem,
        space.first,
        space.last,
        head=None if detection else space.head,
        fpn_channels=deployment.fpn_channels if detection else 0,
    )
    types = [space.choice_type(candidate) for candidate in space.candidates]
    rows = tuple(
        LayerRuntimes(
            shape.in_channels,
            shape.out_channels,
            shape.stride,
            shape.input_size,
            {layer_type: costs[shape.key(layer_type)] for layer_type in types},
            {layer_type: spreads[shape.key(layer_type)] for layer_type in types} if spreads else {},
        )
        for shape in layer_shapes(space, deployment)
    )
    return part, rows


def network_item(architecture: Architecture, deployment: Deployment, key: str = "") -> Item:
    """A whole network."""
    return Item(
        key or f"network_{architecture.name}",
        partial(deployment.network, architecture),
        ((3, *deployment.padded_size),),
    )


def random_networks(
    space: SearchSpace, count: int, seed: int, exclude: Sequence[str] = ()
) -> dict[str, Architecture]:
    """Different random networks by the types of their layers; every other one without SE.

    Args:
        space: the search space.
        count: how many.
        seed: of the draw.
        exclude: networks that must not be among them.

    Raises:
        UserError: if the space has not as many.
    """
    rng = random.Random(seed)
    found: dict[str, Architecture] = {}
    draws = 0
    while len(found) < count:
        draws += 1
        if draws > _DRAWS * (len(found) + 1):
            raise UserError(
                f"search space '{space.name}' has fewer than {count} networks besides "
                f"{len(exclude)} others; ask for fewer of them (--networks, --evaluation-networks)"
            )
        choices = space.sample(rng)
        if len(found) % 2:
            choices = [choice and dataclasses.replace(choice, se=0) for choice in choices]
        types = type_names(space, choices)
        if types not in exclude:
            found.setdefault(types, space.architecture(choices, f"random{seed}_{len(found)}"))
    return found


def type_names(space: SearchSpace, choices: Sequence[Choice]) -> str:
    """The types of a network's searchable layers in one line."""
    return " ".join(str(space.choice_type(choice)) for choice in choices)


def uses_se(types: str) -> bool:
    """Whether any of a network's layers, as :func:`type_names` lists them, has SE."""
    return any(layer_type.has_se for layer_type in parse_types(types))


def choices_named(space: SearchSpace, types: str) -> list[Choice]:
    """The inverse of :func:`type_names`.

    Raises:
        UserError: if the space has no such network.
    """
    wanted = parse_types(types)
    choices = [{space.choice_type(c): c for c in space.choices(layer)} for layer in space.layers]
    if len(wanted) != len(choices) or not all(map(dict.__contains__, choices, wanted)):
        raise UserError(
            f"search space '{space.name}' has no network '{types}'; name the space that it is of: "
            "SEARCH.SPACE of --config-file"
        )
    return [layer[layer_type] for layer, layer_type in zip(choices, wanted, strict=True)]


def _build_layer(space: SearchSpace, shape: LayerShape, candidate: Candidate) -> nn.Module:
    layer = SearchLayer(shape.in_channels, shape.out_channels, shape.stride, shape.activation)
    spec = space.layer_spec(layer, candidate)
    module = make_layer(shape.in_channels, spec, batch_norm(space.largest()))
    if space.padding == "same":
        pad_same(module)
    init_weights(module, residual_scale=1.0)
    return module


def _build_stem(space: SearchSpace) -> nn.Module:
    network = build_classifier(space.largest(), residual_scale=1.0)
    return nn.Sequential(network.stem, *network.layers[: len(space.first)])


def _build_tail(space: SearchSpace, deployment: Deployment) -> nn.Module:
    """The last fixed layers and, for classification, head, pooling and classifier."""
    network = build_classifier(space.largest(), deployment.num_classes, residual_scale=1.0)
    last = network.layers[len(network.layers) - len(space.last) :]
    if deployment.task == "detection":
        return nn.Sequential(*last)
    # AdaptiveAvgPool2d would be another operation than the network's own mean
    return nn.Sequential(*last, network.head, _GlobalMean(), network.hidden, network.classifier)


class _GlobalMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def _map_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)
