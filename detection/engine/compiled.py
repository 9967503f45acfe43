"""``torch.compile`` for the network that a training trains."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from backbones.errors import UserError

BACKEND = "inductor"
"""Of ``torch.compile``."""

_Result = TypeVar("_Result")


def compile_network(network: nn.Module) -> None:
    """Has a network run compiled from now on, as ``SOLVER.COMPILE`` asks.

    In place: parameters keep their names, and copies of the network are not compiled.

    Args:
        network: on its device.

    Raises:
        UserError: if nothing can be compiled here.
    """
    check_compiler(next(network.parameters()).device)
    network.compile(backend=BACKEND)


def check_compiler(device: torch.device) -> None:
    """Compiles next to nothing, as that needs all that a network needs.

    Raises:
        UserError: with PyTorch's reason.
    """
    if not hasattr(torch.compiler, "set_stance"):
        raise UserError(
            f"SOLVER.COMPILE is True, which needs PyTorch 2.6 or later, and this is "
            f"{torch.__version__}: set it to False"
        )
    try:
        torch.compile(_square, backend=BACKEND)(torch.ones(64, device=device))
    except Exception as error:
        reason = getattr(error, "inner_exception", error)
        needed = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
        raise UserError(
            f"SOLVER.COMPILE is True, but torch.compile does not work on '{device.type}' here "
            f"({_first_line(reason)}); it needs {needed}, such as gcc's: install it, or set "
            "SOLVER.COMPILE to False"
        ) from error


def eagerly(function: Callable[[], _Result]) -> Callable[[], _Result]:
    """The function, in which nothing runs compiled.

    Evaluations have other sizes and modes than training steps, each of which would be compiled
    anew.
    """

    @functools.wraps(function)
    def call() -> _Result:
        stance = getattr(torch.compiler, "set_stance", None)  # nothing is compiled without it
        with stance("force_eager") if stance else nullcontext():
            return function()

    return call


def _square(x: Tensor) -> Tensor:
    return x * x + 1


def _first_line(error: Any) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
