"""Depthwise separable ("lite") feature pyramid and detector heads, as in SSDLite.

A pyramid and heads of Detectron2's widths cost many times what a mobile backbone costs. Here every
3×3 convolution in them is a depthwise one and a 1×1 one, by configuration alone:
``MODEL.FPN.LITE True``, ``MODEL.RPN.HEAD_NAME LiteRPNHead``,
``MODEL.ROI_BOX_HEAD.NAME LiteBoxHead``, ``MODEL.ROI_MASK_HEAD.NAME LiteMaskHead``,
``MODEL.META_ARCHITECTURE LiteRetinaNet``.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import DepthwiseSeparableConv2d, ShapeSpec
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
)
from detectron2.modeling.backbone.fpn import FPN
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, MaskRCNNConvUpsampleHead
from torch import nn


def separable(conv: nn.Conv2d) -> DepthwiseSeparableConv2d:
    """A fresh depthwise separable convolution of the same shapes; norm and activation stay last."""
    assert not isinstance(conv.padding, str)
    lite = DepthwiseSeparableConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        conv.padding[0],
        conv.dilation[0],
        activation2=getattr(conv, "activation", None),
    )
    lite.pointwise.norm = getattr(conv, "norm", None)
    if conv.bias is None:
        lite.pointwise.register_parameter("bias", None)
    return lite


def lighten(module: nn.Module) -> None:
    """Replaces the spatial convolutions of stride 1 in a module, in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            if max(child.kernel_size) > 1 and child.groups == 1 and max(child.stride) == 1:
                setattr(module, name, separable(child))
        else:
            lighten(child)


def lighten_pyramid(fpn: FPN) -> None:
    """Replaces the convolutions that smooth the levels, in place; strided ones (P6, P7) stay."""
    for name, child in list(fpn.named_children()):
        if name.startswith("fpn_output"):
            setattr(fpn, name, separable(child))
    # Detectron2 keeps them in a list as well, from the coarsest level to the finest.
    names = sorted((n for n, _ in fpn.named_children() if n.startswith("fpn_output")), reverse=True)
    fpn.output_convs = [fpn.get_submodule(name) for name in names]


@RPN_HEAD_REGISTRY.register()
def LiteRPNHead(cfg: CfgNode, input_shape: list[ShapeSpec]) -> nn.Module:  # noqa: N802
    """``StandardRPNHead`` with separable convolutions."""
    return _lightened(StandardRPNHead(cfg, input_shape))


@ROI_BOX_HEAD_REGISTRY.register()
def LiteBoxHead(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:  # noqa: N802
    """``FastRCNNConvFCHead`` with separable convolutions; what is heavy in it is ``FC_DIM``."""
    return _lightened(FastRCNNConvFCHead(cfg, input_shape))


@ROI_MASK_HEAD_REGISTRY.register()
def LiteMaskHead(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:  # noqa: N802
    """``MaskRCNNConvUpsampleHead`` with separable convolutions."""
    return _lightened(MaskRCNNConvUpsampleHead(cfg, input_shape))


@META_ARCH_REGISTRY.register()
class LiteRetinaNet(RetinaNet):
    """``RetinaNet`` with separable convolutions in its two towers; the predictors stay."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The arguments of ``RetinaNet``, with a lite head."""
        arguments: dict[str, Any] = super().from_config(cfg)
        head = arguments["head"]
        for tower in (head.cls_subnet, head.bbox_subnet):
            lighten(tower)
        return arguments


def _lightened(head: nn.Module) -> nn.Module:
    lighten(head)
    return head
