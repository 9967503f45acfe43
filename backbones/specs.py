"""The parts of an architecture as typed data: stem, layer and head, each checked by itself."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from backbones.layer_types import SKIP, LayerType, Op
from backbones.schema import expect

KERNEL_SIZES = (3, 5, 7)

Activation = Literal["relu", "relu6", "hard_swish"]
Gate = Literal["sigmoid", "hard_sigmoid"]
SEReference = Literal["expanded", "input"]
Padding = Literal["symmetric", "same"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SAME_COLOUR = 0.5 / 255

PerChannel = tuple[float, float, float]
"""A figure of red, green and blue."""


@dataclass(frozen=True)
class InputSpec:
    """The images that a network is made for.

    Attributes:
        size: height and width in pixels of the images that the authors train and evaluate on.
        mean: of each channel, RGB, for images in [0, 1]; it is subtracted first.
        std: the deviation that is divided by.
    """

    size: int = 224
    mean: PerChannel = IMAGENET_MEAN
    std: PerChannel = IMAGENET_STD

    @property
    def pixel_mean(self) -> list[float]:
        """``mean`` for images in [0, 255], as Detectron2's ``MODEL.PIXEL_MEAN``."""
        return [round(255 * value, 3) for value in self.mean]

    @property
    def pixel_std(self) -> list[float]:
        """``std`` for images in [0, 255], as Detectron2's ``MODEL.PIXEL_STD``."""
        return [round(255 * value, 3) for value in self.std]

    def normalises_as(self, mean: Sequence[float], std: Sequence[float]) -> bool:
        """Whether other figures, for images in [0, 1], are these to within half a grey level."""
        ours, theirs = (*self.mean, *self.std), (*mean, *std)
        return len(ours) == len(theirs) and all(
            abs(one - other) <= _SAME_COLOUR for one, other in zip(ours, theirs, strict=True)
        )


IMAGENET = InputSpec()
"""What networks trained on ImageNet expect, unless they say otherwise."""


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
        expansion: channels of the depthwise convolution over input channels. An ``mbconv`` with
            expansion 1 keeps its 1×1 convolution, as FBNet's blocks do.
        se_ratio: squeeze channels over the channels named by ``se_reference``; 0 is no SE.
        se_reference: ``expanded`` is the paper's definition (the input of the SE path),
            ``input`` is MnasNet's (the input of the block).
        se_gate: what turns the SE path's output into factors; ``hard_sigmoid`` is MobileNetV3's.
        activation: after the expansion and the depthwise convolution; the projection is linear.
        channel_divisor: expanded and squeeze channels are rounded to multiples of it; 1 rounds to
            whole numbers, MobileNetV3 has 8.
    """

    out_channels: int
    op: Op = "mbconv"
    kernel_size: int = 3
    stride: int = 1
    expansion: float = 1
    se_ratio: float = 0
    se_reference: SEReference = "expanded"
    se_gate: Gate = "sigmoid"
    activation: Activation = "relu"
    channel_divisor: int = 1

    @property
    def type(self) -> LayerType:
        """What it computes, apart from its shape."""
        if self.op == "skip":
            return SKIP
        return LayerType(self.kernel_size, self.expansion, self.se_ratio, self.op)

    def expanded_channels(self, in_channels: int) -> int:
        """Channels of the depthwise convolution for ``in_channels`` input channels."""
        return in_channels if self.op == "ds" else self._rounded(in_channels * self.expansion)

    def squeeze_channels(self, in_channels: int) -> int:
        """Channels between the two SE convolutions; 0 without SE."""
        if not self.se_ratio:
            return 0
        reference = (
            in_channels if self.se_reference == "input" else self.expanded_channels(in_channels)
        )
        return self._rounded(reference * self.se_ratio)

    def _rounded(self, channels: float) -> int:
        if self.channel_divisor == 1:
            return round(channels)
        return make_divisible(channels, self.channel_divisor)


@dataclass(frozen=True)
class HeadSpec:
    """The 1×1 convolution before global pooling, and what comes between pooling and classifier.

    Attributes:
        out_channels: of the convolution.
        activation: after the convolution, and after the hidden layer.
        hidden_channels: of a linear layer with bias and activation between pooling and classifier
            (MobileNetV3, Sec. 5.1); 0 is none.
        grows: with the multiplier of a network above width 1.0; MobileNets' do, and those of
            MnasNet, Single-Path NAS and FBNet keep their channels. Heads that compute the same
            are equal, whatever they would do at another width.
    """

    out_channels: int
    activation: Activation = "relu"
    hidden_channels: int = 0
    grows: bool = dataclasses.field(default=True, compare=False)


def make_divisible(value: float, divisor: int = 8) -> int:
    """Nearest multiple of ``divisor`` that is not more than 10 % below ``value`` (MobileNet)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


_Spec = typing.TypeVar("_Spec", StemSpec, LayerSpec)


def scaled_spec(spec: _Spec, width_mult: float) -> _Spec:
    """A stem or layer with its channels multiplied."""
    return dataclasses.replace(spec, out_channels=make_divisible(spec.out_channels * width_mult))


def scaled_head(head: HeadSpec, width_mult: float) -> HeadSpec:
    """A head whose last layer before the classifier never shrinks, and grows where it ``grows``.

    So does MobileNetV2's 1×1 convolution (Sec. 4 of its paper). In MobileNetV3 the hidden layer
    takes that part, and the convolution scales as the trunk does. MnasNet's, Single-Path NAS's and
    FBNet's keep 1280 or 1984 channels at any width, as timm and torchvision have them.
    """
    if not head.grows:
        return head
    out = make_divisible(head.out_channels * width_mult)
    if not head.hidden_channels:
        return dataclasses.replace(head, out_channels=max(head.out_channels, out))
    hidden = max(head.hidden_channels, make_divisible(head.hidden_channels * width_mult))
    return dataclasses.replace(head, out_channels=out, hidden_channels=hidden)


def without_defaults(
    spec: LayerSpec | HeadSpec | InputSpec, keep: tuple[str, ...] = ()
) -> dict[str, Any]:
    """JSON-ready, without the fields that are at their default, except for those to ``keep``."""
    return {
        item.name: getattr(spec, item.name)
        for item in dataclasses.fields(spec)
        if item.name in keep or getattr(spec, item.name) != item.default
    }


def check_channels(value: int, where: str, field: str = "out_channels") -> None:
    """Insists on a number of channels; ``where`` begins the message."""
    expect(0 < value <= 65536, f"{where}.{field}", value, "a number of channels above 0")


def check_head(head: HeadSpec, where: str) -> None:
    """Insists on a head that can be built."""
    check_channels(head.out_channels, where)
    if head.hidden_channels:
        check_channels(head.hidden_channels, where, "hidden_channels")


def check_input(spec: InputSpec, where: str) -> None:
    """Insists on figures of images in [0, 1]; ``where`` begins the message."""
    expect(32 <= spec.size <= 4096, f"{where}.size", spec.size, "32 to 4096 pixels")
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        for value in values:
            fits = 0 <= value <= 1 and not (name == "std" and value == 0)
            expect(fits, f"{where}.{name}", list(values), "figures for images in [0, 1]")


def check_layer(layer: LayerSpec, in_channels: int, where: str) -> None:
    """Insists on a layer that can be built for ``in_channels`` input channels."""
    check_channels(layer.out_channels, where)
    expect(layer.stride in (1, 2), f"{where}.stride", layer.stride, "1 or 2")
    _OP_CHECKS[layer.op](layer, in_channels, where)


def _check_skip(layer: LayerSpec, in_channels: int, where: str) -> None:
    expect(layer.stride == 1, f"{where}.stride", layer.stride, "1, since the layer is skipped")
    expect(
        layer.out_channels == in_channels,
        f"{where}.out_channels",
        layer.out_channels,
        f"{in_channels}, the channels of its input, since the layer is skipped",
    )


def _check_ds(layer: LayerSpec, in_channels: int, where: str) -> None:
    expect(layer.expansion == 1, f"{where}.expansion", layer.expansion, "1 for a 'ds' layer")
    _check_mbconv(layer, in_channels, where)


def _check_mbconv(layer: LayerSpec, in_channels: int, where: str) -> None:
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
    divisor = layer.channel_divisor
    expect(1 <= divisor <= 256, f"{where}.channel_divisor", divisor, "a whole number, 1 to 256")
    expect(0 <= layer.se_ratio <= 1, f"{where}.se_ratio", layer.se_ratio, "a ratio in [0, 1]")
    if layer.se_ratio:
        expect(
            layer.squeeze_channels(in_channels) > 0,
            f"{where}.se_ratio",
            layer.se_ratio,
            f"a ratio that leaves at least one of {in_channels} channels",
        )


_OP_CHECKS: Mapping[Op, Callable[[LayerSpec, int, str], None]] = {
    "mbconv": _check_mbconv,
    "ds": _check_ds,
    "skip": _check_skip,
}
"""What each op asks of its layer beside channels and stride."""
