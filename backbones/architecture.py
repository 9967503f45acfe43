"""Architectures as typed, validated data, saved as JSON.

Every network, searched or published, is one :class:`Architecture`: a stem, a list of layers and
a head. A layer that a search dropped stays in the list as ``skip``, so that the position of a
layer is the same in the network, in the search space and in a latency table.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backbones.errors import UserError
from backbones.files import read_json, write_json
from backbones.schema import expect, parse_versioned

SCHEMA_VERSION = 1
ACTIVATIONS = ("relu", "relu6", "hard_swish")
KERNEL_SIZES = (3, 5, 7)
FEATURE_STRIDES = (2, 4, 8, 16, 32)
SKIP = "skip"

Activation = Literal["relu", "relu6", "hard_swish"]


@dataclass(frozen=True)
class StemSpec:
    """The first convolution: k×k, stride 2."""

    out_channels: int
    kernel_size: int = 3
    activation: Activation = "relu"


@dataclass(frozen=True)
class LayerSpec:
    """One layer of the trunk.

    Attributes:
        op: ``mbconv`` (1×1 expansion, depthwise k×k, squeeze-and-excitation, 1×1 projection),
            ``ds`` (depthwise k×k, 1×1 projection: no expansion convolution), or ``skip`` (the
            identity; Sec. III-A's skip-op).
        out_channels: channels after the projection.
        kernel_size: of the depthwise convolution.
        stride: of the depthwise convolution.
        expansion: channels of the depthwise convolution over input channels.
        se_ratio: squeeze channels over the channels named by ``se_reference``; 0 is no SE.
        se_reference: ``expanded`` is the paper's definition (the input of the SE path),
            ``input`` is MnasNet's (the input of the block).
        activation: after the expansion and the depthwise convolution; the projection is linear.
    """

    out_channels: int
    op: Literal["mbconv", "ds", "skip"] = "mbconv"
    kernel_size: int = 3
    stride: int = 1
    expansion: float = 1
    se_ratio: float = 0
    se_reference: Literal["expanded", "input"] = "expanded"
    activation: Activation = "relu"

    @property
    def type_name(self) -> str:
        """The paper's name without its prefix: ``5x5-6``, ``3x3-3-0.25``, or ``skip``."""
        if self.op == "skip":
            return SKIP
        return candidate_name(self.kernel_size, self.expansion, self.se_ratio)

    def expanded_channels(self, in_channels: int) -> int:
        """Channels of the depthwise convolution for ``in_channels`` input channels."""
        return round(in_channels * self.expansion) if self.op == "mbconv" else in_channels

    def squeeze_channels(self, in_channels: int) -> int:
        """Channels between the two SE convolutions; 0 without SE."""
        reference = (
            in_channels if self.se_reference == "input" else self.expanded_channels(in_channels)
        )
        return round(reference * self.se_ratio)


def candidate_name(kernel_size: int, expansion: float, se_ratio: float = 0) -> str:
    """``MBConv-k×k-e-se`` of Sec. III-A as a key: ``3x3-6``, ``5x5-3-0.5``."""
    name = f"{kernel_size}x{kernel_size}-{expansion:g}"
    return f"{name}-{se_ratio:g}" if se_ratio else name


def has_se(type_name: str) -> bool:
    """Whether a type, as :func:`candidate_name` calls it, has squeeze-and-excitation."""
    return type_name.count("-") == 2


@dataclass(frozen=True)
class HeadSpec:
    """The 1×1 convolution before global pooling and the classifier."""

    out_channels: int
    activation: Activation = "relu"


@dataclass(frozen=True)
class Architecture:
    """A whole network, checked when it is built.

    Attributes:
        name: what logs and tables call it.
        stem: first convolution.
        layers: the trunk, skipped layers included.
        head: last convolution, of the classifier only.
        norm_eps: epsilon of every batch norm.
        provenance: where it comes from: source and pretrained weights of a published network;
            config, seed, latency table and predicted runtime of a searched one.

    Raises:
        UserError: if a value is impossible; the message names the field.
    """

    name: str
    stem: StemSpec
    layers: tuple[LayerSpec, ...]
    head: HeadSpec
    norm_eps: float = 1e-5
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_architecture(self)

    @property
    def in_channels(self) -> tuple[int, ...]:
        """Input channels of every layer."""
        return (self.stem.out_channels, *(layer.out_channels for layer in self.layers[:-1]))

    @property
    def reductions(self) -> tuple[int, ...]:
        """Stride of every layer's output relative to the image."""
        strides, total = [], 2
        for layer in self.layers:
            total *= layer.stride
            strides.append(total)
        return tuple(strides)

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """Index of the last layer at stride 2, 4, 8, 16 and 32."""
        last = {stride: index for index, stride in enumerate(self.reductions)}
        return tuple(last[stride] for stride in FEATURE_STRIDES)

    def scaled(self, width_mult: float) -> Architecture:
        """The same network with all channels multiplied (Fig. 7), rounded to multiples of 8.

        As in MobileNetV2, the head grows with the multiplier but does not shrink.
        """
        if not 0.1 <= width_mult <= 10:
            raise UserError(f"width_mult is {width_mult:g}; expected a factor from 0.1 to 10")
        if width_mult == 1:
            return self
        head = make_divisible(self.head.out_channels * width_mult)
        return dataclasses.replace(
            self,
            name=f"{self.name}_x{width_mult:g}",
            stem=_scaled(self.stem, width_mult),
            layers=tuple(_scaled(layer, width_mult) for layer in self.layers),
            head=dataclasses.replace(self.head, out_channels=max(self.head.out_channels, head)),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; fields at their default are left out of the layers."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "stem": dataclasses.asdict(self.stem),
            "layers": [_without_defaults(layer) for layer in self.layers],
            "head": dataclasses.asdict(self.head),
            "norm_eps": self.norm_eps,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, data: Any, where: str = "architecture") -> Architecture:
        """Reads what :meth:`to_dict` wrote.

        Args:
            data: the decoded JSON.
            where: named in error messages, e.g. the file.
        """
        architecture: Architecture = parse_versioned(cls, data, SCHEMA_VERSION, where)
        return architecture

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the architecture as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Architecture:
        """Reads an architecture file.

        Raises:
            UserError: if the file is missing, is not JSON, or holds an impossible network.
        """
        return cls.from_dict(read_json(path, "architecture"), where=str(path))


def make_divisible(value: float, divisor: int = 8) -> int:
    """Nearest multiple of ``divisor`` that is not more than 10 % below ``value`` (MobileNet)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


_Spec = typing.TypeVar("_Spec", StemSpec, LayerSpec)


def _scaled(spec: _Spec, width_mult: float) -> _Spec:
    return dataclasses.replace(spec, out_channels=make_divisible(spec.out_channels * width_mult))


def _without_defaults(layer: LayerSpec) -> dict[str, Any]:
    return {
        item.name: getattr(layer, item.name)
        for item in dataclasses.fields(layer)
        if item.name in ("op", "out_channels") or getattr(layer, item.name) != item.default
    }


def _check_channels(value: int, where: str) -> None:
    expect(0 < value <= 65536, f"{where}.out_channels", value, "a number of channels above 0")


def _check_layer(layer: LayerSpec, in_channels: int, where: str) -> None:
    _check_channels(layer.out_channels, where)
    expect(layer.stride in (1, 2), f"{where}.stride", layer.stride, "1 or 2")
    if layer.op == "skip":
        expect(layer.stride == 1, f"{where}.stride", layer.stride, "1, since the layer is skipped")
        expect(
            layer.out_channels == in_channels,
            f"{where}.out_channels",
            layer.out_channels,
            f"{in_channels}, the channels of its input, since the layer is skipped",
        )
        return
    expect(
        layer.kernel_size in KERNEL_SIZES,
        f"{where}.kernel_size",
        layer.kernel_size,
        f"one of {', '.join(map(str, KERNEL_SIZES))}",
    )
    expect(0 < layer.expansion <= 32, f"{where}.expansion", layer.expansion, "a ratio in (0, 32]")
    expect(
        layer.expanded_channels(in_channels) > 0,
        f"{where}.expansion",
        layer.expansion,
        f"a ratio that leaves at least one of {in_channels} channels",
    )
    if layer.op == "ds":
        expect(layer.expansion == 1, f"{where}.expansion", layer.expansion, "1 for a 'ds' layer")
    expect(0 <= layer.se_ratio <= 1, f"{where}.se_ratio", layer.se_ratio, "a ratio in [0, 1]")
    if layer.se_ratio:
        expect(
            layer.squeeze_channels(in_channels) > 0,
            f"{where}.se_ratio",
            layer.se_ratio,
            f"a ratio that leaves at least one of {in_channels} channels",
        )


def _check_architecture(architecture: Architecture) -> None:
    where = f"architecture '{architecture.name}'"
    expect(bool(architecture.name), f"{where}: name", architecture.name, "a name")
    _check_channels(architecture.stem.out_channels, f"{where}: stem")
    kernel = architecture.stem.kernel_size
    expect(kernel in KERNEL_SIZES, f"{where}: stem.kernel_size", kernel, "3, 5 or 7")
    expect(len(architecture.layers) > 0, f"{where}: layers", [], "at least one layer")
    for index, (layer, channels) in enumerate(
        zip(architecture.layers, architecture.in_channels, strict=True)
    ):
        _check_layer(layer, channels, f"{where}: layers[{index}]")
    _check_channels(architecture.head.out_channels, f"{where}: head")
    expect(0 < architecture.norm_eps < 1, f"{where}: norm_eps", architecture.norm_eps, "in (0, 1)")
    strides = sorted(set(architecture.reductions))
    expect(
        strides == list(FEATURE_STRIDES),
        f"{where}: the strides that its layers reach",
        strides,
        f"{list(FEATURE_STRIDES)}: a first layer with stride 1, then four layers with stride 2",
    )
