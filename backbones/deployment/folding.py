"""Batch norm folded into the convolution before it, whatever library the module is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from backbones.deployment.formats.torch_export import to_program

_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)


def folded(
    module: nn.Module,
    inputs: Sequence[Tensor],
    *,
    dynamic: Sequence[Mapping[int, str]] = (),
    divisor: int = 1,
) -> fx.GraphModule:
    """The same function without the batch norms that directly follow a convolution.

    A convolution that several batch norms share (a head over all levels of a pyramid) is copied.

    Args:
        module: in eval mode; it is left as it is.
        inputs: examples.
        dynamic: see :func:`backbones.deployment.formats.torch_export.to_program`.
        divisor: likewise.
    """
    program = to_program(module, inputs, dynamic=dynamic, divisor=divisor)
    graph_module: fx.GraphModule = program.module(check_guards=False)
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.batch_norm.default and _follows_convolution(node):
            _fold(graph_module, node)
    graph.eliminate_dead_code()
    graph_module.recompile()
    return graph_module


def _follows_convolution(norm: fx.Node) -> bool:
    before = norm.args[0]
    return (
        isinstance(before, fx.Node)
        and before.target in _CONVOLUTIONS
        and len(before.users) == 1
        and not norm.args[5]  # training
    )


def _fold(module: fx.GraphModule, norm: fx.Node) -> None:
    graph, convolution = module.graph, norm.args[0]
    assert isinstance(convolution, fx.Node)
    scale, shift, mean, variance = (_tensor(module, argument) for argument in norm.args[1:5])
    weight, *rest = (_tensor(module, argument) for argument in convolution.args[1:3])
    bias = rest[0] if rest else None
    assert weight is not None
    assert mean is not None
    assert variance is not None
    epsilon = norm.args[7]
    assert isinstance(epsilon, float)
    fused = fuse_conv_bn_weights(
        *(weight, bias, mean, variance, epsilon),
        scale if scale is not None else torch.ones_like(mean),
        shift if shift is not None else torch.zeros_like(mean),
    )
    nodes = []
    for name, parameter in zip(("weight", "bias"), fused, strict=True):
        attribute = f"{convolution.name}_folded_{name}"
        module.register_parameter(attribute, nn.Parameter(parameter.detach(), requires_grad=False))
        with graph.inserting_before(convolution):
            nodes.append(graph.get_attr(attribute))
    convolution.args = (convolution.args[0], *nodes, *convolution.args[3:])
    norm.replace_all_uses_with(convolution)
    graph.erase_node(norm)


def _tensor(module: nn.Module, argument: Any) -> Tensor | None:
    """The parameter or buffer that a node reads."""
    if argument is None:
        return None
    assert isinstance(argument, fx.Node)
    assert argument.op == "get_attr", argument
    owner, _, name = str(argument.target).rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(owner), name)
    return tensor
