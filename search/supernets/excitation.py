"""Squeeze-and-excitation of which decisions leave a part (Eq. 4), and its gradient.

The gradient is written out: PyTorch's own would take half as many operations more, and one more
pass over the feature map, since that is both what is squeezed and what is scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

GATES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "sigmoid": (
        torch.sigmoid,
        lambda grad, inputs, gate: torch.ops.aten.sigmoid_backward(grad, gate),
    ),
    "hard_sigmoid": (
        F.hardsigmoid,
        lambda grad, inputs, gate: torch.ops.aten.hardsigmoid_backward(grad, inputs),
    ),
}
"""Every gate, and its gradient from that of its output, its input and its output."""


class Excitation(torch.autograd.Function):
    """x · (identity + excited · gate(V (squeeze · relu(W (channels · mean x) + b)) + c)).

    Weights of 0 in ``channels`` and in ``squeeze`` leave out channels and squeeze channels;
    ``identity`` is what passes as it is.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        channels: Tensor,
        squeeze: Tensor,
        identity: Tensor,
        excited: Tensor,
        reduce: Tensor,
        reduce_bias: Tensor,
        expand: Tensor,
        expand_bias: Tensor,
        kind: str,
    ) -> Tensor:
        """(N, C, H, W) → the same shape.

        Args:
            ctx: PyTorch's, for the backward pass.
            x: (N, C, H, W).
            channels: (C,) weight of every channel in the squeeze.
            squeeze: (Q,) weight of every squeeze channel.
            identity: (C,) part of every channel that passes as it is.
            excited: (C,) part of every channel that is scaled.
            reduce: (Q, C, 1, 1) W.
            reduce_bias: (Q,) b.
            expand: (C, Q, 1, 1) V.
            expand_bias: (C,) c.
            kind: of gate, a key of ``GATES``.
        """
        with torch.autocast(x.device.type, enabled=False):
            # of maps of one pixel, a 1×1 convolution is a matrix product
            first, second = reduce.flatten(1), expand.flatten(1)
            pooled = x.mean((2, 3))
            masked = pooled * channels
            hidden = F.linear(masked, first, reduce_bias).relu_()
            used = hidden * squeeze
            inputs = F.linear(used, second, expand_bias)
            gate = GATES[kind][0](inputs)
            scale = torch.addcmul(identity, excited, gate).view(*x.shape[:2], 1, 1)
            found = x * scale
        kept = (x, channels, squeeze, excited, first, second)
        ctx.save_for_backward(*kept, pooled, masked, hidden, used, inputs, gate, scale)
        ctx.kind = kind
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what :meth:`forward` takes; of the decisions where they have one."""
        (grad,) = grads
        x, channels, squeeze, excited, first, second, *rest = ctx.saved_tensors
        pooled, masked, hidden, used, inputs, gate, scale = rest
        with torch.autocast(x.device.type, enabled=False):
            d_scale = (grad * x).sum((2, 3))  # (N, C)
            d_inputs = GATES[ctx.kind][1](d_scale * excited, inputs, gate)
            d_used = d_inputs @ second  # (N, Q)
            d_hidden = torch.ops.aten.threshold_backward(d_used * squeeze, hidden, 0)
            d_masked = d_hidden @ first  # (N, C)
            d_pooled = d_masked * channels / (x.shape[2] * x.shape[3])
            d_x = torch.addcmul(d_pooled.view(scale.shape), grad, scale)
            decided: list[Tensor | None] = [None] * 4
            if any(ctx.needs_input_grad[1:5]):
                decided = [
                    (d_masked * pooled).sum(0),
                    (d_used * hidden).sum(0),
                    d_scale.sum(0),
                    (d_scale * gate).sum(0),
                ]
            weights = (
                (d_hidden.T @ masked).view(*first.shape, 1, 1),
                d_hidden.sum(0),
                (d_inputs.T @ used).view(*second.shape, 1, 1),
                d_inputs.sum(0),
            )
        return d_x, *decided, *weights, None
