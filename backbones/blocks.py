"""The building blocks: convolution with norm and activation, squeeze-and-excitation, MBConv."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.architecture import LayerSpec
from backbones.layer_types import Op

NormLayer = Callable[[int], nn.Module]
"""Builds a normalisation layer for a number of channels."""

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
}
_GATES: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "hard_sigmoid": nn.Hardsigmoid}


def make_activation(name: str) -> nn.Module:
    """An in-place activation by the name that architecture files use."""
    return _ACTIVATIONS[name](inplace=True)


class SamePadding(nn.Module):
    """The zeros that TensorFlow's ``SAME`` puts around the input of a convolution with stride 2.

    As many as symmetric padding has, but one row less above and one column less on the left where
    the side is even.

    Args:
        kernel_size: of the convolution; odd.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.reach = kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same, padded for output of ceil(H/2), ceil(W/2)."""
        reach, height, width = self.reach, x.shape[2], x.shape[3]
        return F.pad(x, [reach - 1 + width % 2, reach, reach - 1 + height % 2, reach])


class ConvNormAct(nn.Module):
    """Convolution without bias, normalisation, and an activation unless ``activation`` is None.

    The padding is symmetric; :func:`pad_same` changes that.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        norm_layer: NormLayer,
        activation: str | None,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.pad: nn.Module = nn.Identity()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.norm = norm_layer(out_channels)
        self.act = make_activation(activation) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, ceil(H/stride), ceil(W/stride))."""
        return self.act(self.norm(self.conv(self.pad(x))))


class SqueezeExcite(nn.Module):
    """Scales every channel by a gate computed from the pooled input (Hu et al., 2018)."""

    def __init__(self, channels: int, squeeze_channels: int, gate: str = "sigmoid") -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze_channels, 1)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(squeeze_channels, channels, 1)
        self.gate = _GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return x * self.gate(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))


class HiddenLayer(nn.Module):
    """A linear layer and an activation between pooling and classifier (MobileNetV3, Sec. 5.1)."""

    def __init__(self, in_channels: int, out_channels: int, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)
        self.act = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in) → (N, C_out)."""
        return self.act(self.linear(x))


class MBConv(nn.Module):
    """Mobile inverted bottleneck: expand 1×1, depthwise k×k, SE, project 1×1 (Sec. III-A).

    With ``spec.op == "ds"`` there is no expansion convolution. The input is added to the output
    where the shape allows it, i.e. at stride 1 with equal channels.
    """

    def __init__(self, in_channels: int, spec: LayerSpec, norm_layer: NormLayer) -> None:
        super().__init__()
        assert spec.op in ("mbconv", "ds"), spec.op
        channels = spec.expanded_channels(in_channels)
        squeeze_channels = spec.squeeze_channels(in_channels)
        self.expand = (
            ConvNormAct(in_channels, channels, 1, norm_layer, spec.activation)
            if spec.op == "mbconv"
            else nn.Identity()
        )
        self.depthwise = ConvNormAct(
            channels,
            channels,
            spec.kernel_size,
            norm_layer,
            spec.activation,
            stride=spec.stride,
            groups=channels,
        )
        self.se = (
            SqueezeExcite(channels, squeeze_channels, spec.se_gate)
            if squeeze_channels
            else nn.Identity()
        )
        self.project = ConvNormAct(channels, spec.out_channels, 1, norm_layer, activation=None)
        self.residual = spec.stride == 1 and in_channels == spec.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, ceil(H/stride), ceil(W/stride))."""
        y = self.project(self.se(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


BLOCKS: Mapping[Op, Callable[[int, LayerSpec, NormLayer], nn.Module]] = {
    "mbconv": MBConv,
    "ds": MBConv,
    "skip": nn.Identity,
}
"""The module of every op, made from input channels, description and normalisation."""


def make_layer(in_channels: int, spec: LayerSpec, norm_layer: NormLayer) -> nn.Module:
    """The module of one layer of an architecture."""
    return BLOCKS[spec.op](in_channels, spec, norm_layer)


def pad_same(module: nn.Module) -> None:
    """Gives every :class:`ConvNormAct` with stride 2 the padding of TensorFlow's ``SAME``.

    With stride 1 and odd kernels, that is symmetric.
    """
    for child in module.modules():
        if isinstance(child, ConvNormAct) and child.conv.stride == (2, 2):
            child.pad = SamePadding(child.conv.kernel_size[0])
            child.conv.padding = (0, 0)


def init_weights(module: nn.Module, residual_scale: float = 0.0) -> None:
    """He initialisation (fan out), unit norms, and residual branches of one scale.

    Args:
        module: freshly built, so that its norms are units.
        residual_scale: see :func:`scale_residual_branches`. At 0 a 20-layer MBConv network starts
            as an almost linear chain and trains in its first few hundred steps; others hardly
            move.
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            fan_out = child.kernel_size[0] * child.kernel_size[1] * child.out_channels
            nn.init.normal_(child.weight, std=(2 * child.groups / fan_out) ** 0.5)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.Linear):
            nn.init.normal_(child.weight, std=0.01)
            nn.init.zeros_(child.bias)
    scale_residual_branches(module, residual_scale)


def scale_residual_branches(module: nn.Module, scale: float) -> None:
    """Sets the weight of the last norm of every residual branch, where that is a parameter.

    A block has a residual branch where its attribute ``residual`` is True; ``project`` is its last
    convolution with its norm.

    The weight of a frozen norm is none: zero would switch its branch off for good.
    """
    for child in module.modules():
        if getattr(child, "residual", False):
            project = cast(ConvNormAct, child.project)
            weight = dict(project.norm.named_parameters()).get("weight")
            if weight is not None:
                nn.init.constant_(weight, scale)
