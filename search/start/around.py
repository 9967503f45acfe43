"""The space around a network: its shape, with options beside those that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

from backbones.architecture import Architecture, LayerSpec
from backbones.errors import UserError
from search.space import Choice, SearchSpace, Stage


@dataclass(frozen=True)
class Options:
    """What a space around a network offers beside the network's own.

    Attributes:
        kernel_sizes, expansions, se_ratios: of every searchable layer; those that the network has
            are added.
        extra_depth: layers more in every stage, which the network skips.
    """

    kernel_sizes: Sequence[int] = (3, 5)
    expansions: Sequence[float] = (3, 6)
    se_ratios: Sequence[float] = (0,)
    extra_depth: int = 0


def space_around(network: Architecture, options: Options) -> tuple[SearchSpace, list[Choice]]:
    """The space of networks that share the stem, stages and head of one, and its own choices.

    Layers before the first stride are fixed; all others are searched. A stage begins at a stride,
    and where channels or activation change.

    Args:
        network: of ``mbconv`` layers, and skipped ones, behind the first stride.
        options: beside the network's own.

    Returns:
        The space, and the choices in it that make ``network``, where extra layers are skipped.

    Raises:
        UserError: if a layer is of another kind, or layers differ in what a space has once.
    """
    if options.extra_depth < 0:
        raise UserError(f"SEARCH.AROUND.EXTRA_DEPTH is {options.extra_depth}; expected 0 or more")
    first = tuple(takewhile(lambda layer: layer.stride == 1, network.layers))
    layers = network.layers[len(first) :]
    kept = [layer for layer in layers if layer.op != "skip"]
    for index, layer in enumerate(layers, start=len(first)):
        if layer.op not in ("mbconv", "skip"):
            raise UserError(
                f"architecture '{network.name}' cannot be the start of a search: its layer {index} "
                f"is '{layer.op}', and the layers of a search space are 'mbconv'; start from "
                "another network"
            )
    groups = _stages(layers)
    space = SearchSpace(
        name=f"around_{network.name}",
        stem=network.stem,
        first=first,
        stages=tuple(
            Stage(
                group[0].out_channels,
                len(group) + options.extra_depth,
                group[0].stride,
                None if group[0].activation == kept[0].activation else group[0].activation,
            )
            for group in groups
        ),
        last=(),
        head=network.head,
        kernel_sizes=_with(options.kernel_sizes, (layer.kernel_size for layer in kept)),
        expansions=_with(options.expansions, (layer.expansion for layer in kept)),
        se_ratios=_with(options.se_ratios, (layer.se_ratio for layer in kept)),
        activation=kept[0].activation,
        norm_eps=network.norm_eps,
        se_reference=_common(network, "se_reference", [x for x in kept if x.se_ratio], "expanded"),
        se_gate=_common(network, "se_gate", [x for x in kept if x.se_ratio], "sigmoid"),
        channel_divisor=_common(network, "channel_divisor", kept, 1),
        padding=network.padding,
        input=network.input,
        fixed_stem=network.fixed_stem,
    )
    own = iter(space.layers)
    choices: list[Choice] = []
    for group in groups:
        shapes = [next(own) for _ in range(len(group) + options.extra_depth)]
        choices += [
            next(c for c in space.choices(shape) if space.layer_spec(shape, c) == spec)
            for shape, spec in zip(shapes, group, strict=False)
        ]
        choices += [None] * options.extra_depth
    return space, choices


def _stages(layers: Sequence[LayerSpec]) -> list[list[LayerSpec]]:
    """Layers by stage; a skipped layer has no activation of its own, and is of the stage before."""
    stage = 0
    numbers = []
    shape: tuple[Any, ...] = ()
    for layer in layers:
        own = layer.out_channels, layer.activation
        if layer.op != "skip" and (layer.stride == 2 or own != shape):
            stage += 1
            shape = own
        numbers.append(stage)
    pairs = groupby(zip(numbers, layers, strict=True), key=lambda pair: pair[0])
    return [[layer for _, layer in group] for _, group in pairs]


def _with(options: Sequence[Any], own: Any) -> tuple[Any, ...]:
    return tuple(sorted({*options, *own}))


def _common(network: Architecture, field: str, layers: Sequence[LayerSpec], default: Any) -> Any:
    """The value that all layers share; ``default`` where there are none."""
    values = sorted({getattr(layer, field) for layer in layers})
    if len(values) > 1:
        raise UserError(
            f"architecture '{network.name}' cannot be the start of a search: its layers have "
            f"different values of {field}, {' and '.join(map(str, values))}, and a search space "
            "has one; start from another network"
        )
    return values[0] if values else default
