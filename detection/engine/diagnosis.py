"""Where in a network a number first is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from detection.engine.compiled import eagerly


@torch.no_grad()
def first_nonfinite(model: nn.Module, forward: Callable[[], Any]) -> str:
    """What of a forward pass first holds NaN or infinity, for a message.

    Args:
        model: its modules are looked at.
        forward: runs it, and may fail on such numbers.

    Returns:
        Weights that are not finite; or the first module, in the order of computation, whose output
        is not, and whether its input was.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"the weights '{name}' are not finite"
    names = {module: name or "the network" for name, module in model.named_modules()}
    found: list[str] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if not found and not all(map(_finite, _tensors(output))):
            before = all(map(_finite, _tensors(inputs)))
            kind = type(module).__name__
            found.append(
                f"first in the output of '{names[module]}' ({kind}), whose input is "
                + ("finite" if before else "not, as the batch is not")
            )

    handles = [module.register_forward_hook(look) for module in names]
    try:
        with suppress(FloatingPointError, RuntimeError, ValueError, AssertionError):
            eagerly(forward)()  # compiled code would call no hooks
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "no layer's output is so when the batch is repeated"


def bad_gradient(model: nn.Module) -> str:
    """Of finite losses, the parameter nearest to them whose gradient is not finite."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    bad = [name for name, gradient in named if not _finite(gradient)]
    nearest = f", nearest to the loss that of '{bad[-1]}'" if bad else ""
    return f"the losses are finite and gradients are not{nearest}"


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in containers, and in Detectron2's structures."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(tensor := getattr(value, "tensor", None), Tensor):
        yield tensor
