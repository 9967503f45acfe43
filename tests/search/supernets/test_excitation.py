"""The gradient that is written out is that of PyTorch's own operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from search.supernets.excitation import Excitation

PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
}


def inputs(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Six channels, of which two are unused and two without SE; four squeeze channels."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    channels = torch.tensor([1, 1, 1, 0.5, 0, 0], dtype=dtype)
    identity = torch.tensor([0, 0.3, 1, 0.5, 0, 0], dtype=dtype)
    squeeze = torch.tensor([1, 1, 0.4, 0], dtype=dtype)
    return [
        random(3, 6, 5, 4),
        *(channels, squeeze, identity, channels - identity),
        *(random(4, 6, 1, 1), random(4), random(6, 4, 1, 1), random(6)),
    ]


def by_hand(
    x: Tensor, channels: Tensor, squeeze: Tensor, identity: Tensor, excited: Tensor,
    reduce: Tensor, reduce_bias: Tensor, expand: Tensor, expand_bias: Tensor, kind: str,
) -> Tensor:  # fmt: skip
    """Convolutions of masked maps."""
    pooled = x.mean((2, 3), keepdim=True) * channels[:, None, None]
    hidden = F.relu(F.conv2d(pooled, reduce, reduce_bias)) * squeeze[:, None, None]
    gate = PLAIN[kind](F.conv2d(hidden, expand, expand_bias))
    return x * (identity[:, None, None] + excited[:, None, None] * gate)


@pytest.mark.parametrize("kind", PLAIN)
def test_maps_and_gradients(kind: str) -> None:
    ours = [value.requires_grad_() for value in inputs()]
    theirs = [value.requires_grad_() for value in inputs()]
    target = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    found, expected = Excitation.apply(*ours, kind), by_hand(*theirs, kind)
    torch.testing.assert_close(found, expected)
    (found * target).sum().backward()
    (expected * target).sum().backward()
    for own, other in zip(ours, theirs, strict=True):
        assert own.grad is not None and other.grad is not None
        assert other.grad.abs().max() > 1e-3
        torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("kind", PLAIN)
def test_gradients_are_those_of_differences(kind: str) -> None:
    values = [value.requires_grad_() for value in inputs()]
    assert torch.autograd.gradcheck(lambda *v: Excitation.apply(*v, kind), values)


def test_decisions_without_a_gradient_get_none() -> None:
    """As in steps of a network that is forced."""
    values = inputs()
    trained = [0, 5, 6, 7, 8]
    for index in trained:
        values[index].requires_grad_()
    Excitation.apply(*values, "sigmoid").square().sum().backward()
    assert [index for index, value in enumerate(values) if value.grad is not None] == trained
