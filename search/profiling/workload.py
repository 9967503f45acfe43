"""What is measured for a latency table: candidate layers, the constant part, whole networks."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.architecture import Architecture
from backbones.blocks import init_weights, make_layer
from backbones.latency import input_sizes
from backbones.network import Classifier, batch_norm, build_classifier
from detection.deployment import PYRAMID_STRIDES, Deployment
from search.space import Candidate, Choice, SearchSpace

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Item:
    """One thing to measure.

    Attributes:
        key: names it among all items, in a form that is also a file name.
        build: makes the module.
        shapes: (C, H, W) of every input.
    """

    key: str
    build: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]

    def inputs(self) -> list[Tensor]:
        """Random maps (1, C, H, W)."""
        return [torch.randn(1, *shape) for shape in self.shapes]


@dataclass(frozen=True)
class LayerShape:
    """The input and output of a searchable layer: layers that share it are measured once."""

    in_channels: int
    out_channels: int
    stride: int
    input_size: tuple[int, int]

    def key(self, candidate: str) -> str:
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
        LayerShape(layer.in_channels, layer.out_channels, layer.stride, size)
        for layer, size in zip(space.layers, sizes, strict=False)
    ]
    return list(dict.fromkeys(shapes))


def layer_items(space: SearchSpace, deployment: Deployment) -> list[Item]:
    """Every candidate of every shape."""
    norm_layer = batch_norm(space.largest())
    layers = {(la.in_channels, la.out_channels, la.stride): la for la in space.layers}

    def build(shape: LayerShape, candidate: Candidate) -> nn.Module:
        layer = layers[shape.in_channels, shape.out_channels, shape.stride]
        module = make_layer(shape.in_channels, space.layer_spec(layer, candidate), norm_layer)
        init_weights(module, zero_init_residual=False)
        return module

    return [
        Item(
            shape.key(space.choice_name(candidate)),
            lambda shape=shape, candidate=candidate: build(shape, candidate),  # type: ignore[misc]
            ((shape.in_channels, *shape.input_size),),
        )
        for shape in layer_shapes(space, deployment)
        for candidate in space.candidates
    ]


def constant_items(space: SearchSpace, deployment: Deployment) -> list[Item]:
    """The parts that are not searched: what comes before the searchable layers, and after."""
    largest, size = space.largest(), deployment.padded_size
    begin, end = len(space.first), len(largest.layers) - len(space.last)
    channels = (*largest.in_channels, largest.layers[-1].out_channels)
    sizes = [*input_sizes(largest, size), _map_size(size, 32)]
    tail_shape = (channels[end], *sizes[end])

    def network() -> Classifier:
        return build_classifier(largest, deployment.num_classes, zero_init_residual=False)

    def stem() -> nn.Module:
        whole = network()
        return nn.Sequential(whole.stem, *whole.layers[:begin])

    items = [Item("stem", stem, ((3, *size),))]
    if deployment.task == "classification":
        return [*items, Item("tail", lambda: _Tail(network(), end), (tail_shape,))]
    if space.last:
        items.append(Item("tail", lambda: nn.Sequential(*network().layers[end:]), (tail_shape,)))
    taps = [largest.layers[index].out_channels for index in largest.feature_layers[1:]]
    maps = tuple(
        (count, *_map_size(size, stride))
        for count, stride in zip(taps, PYRAMID_STRIDES, strict=True)
    )
    return [*items, Item("fpn", lambda: deployment.pyramid(taps), maps)]


def network_item(architecture: Architecture, deployment: Deployment, key: str = "") -> Item:
    """A whole network."""
    return Item(
        key or f"network_{architecture.name}",
        lambda: deployment.network(architecture),
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
    """
    rng = random.Random(seed)
    found: dict[str, Architecture] = {}
    while len(found) < count:
        choices = space.sample(rng)
        if len(found) % 2:
            choices = [choice and dataclasses.replace(choice, se=0) for choice in choices]
        types = type_names(space, choices)
        if types not in exclude:
            found.setdefault(types, space.architecture(choices, f"random{seed}_{len(found)}"))
    return found


def type_names(space: SearchSpace, choices: Sequence[Choice]) -> str:
    """The types of a network's searchable layers in one line."""
    return " ".join(map(space.choice_name, choices))


class _Tail(nn.Module):
    """The last fixed layers, head, pooling and classifier of a network."""

    def __init__(self, network: Classifier, begin: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*network.layers[begin:])
        self.head = network.head
        self.classifier = network.classifier

    def forward(self, x: Tensor) -> Tensor:
        """Maps (1, C, H/32, W/32) → logits (1, K)."""
        logits: Tensor = self.classifier(self.head(self.layers(x)).mean((2, 3)))
        return logits


def _map_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)
