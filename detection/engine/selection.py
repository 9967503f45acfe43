"""Tensors that are set aside, and put back where a flag says so that only their device knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import is_

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By the bytes of an element."""


class Kept:
    """Tensors that change, and their content at one time.

    Args:
        tensors: of any types, on one device.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        self._tensors = list(tensors)
        for tensor in self._tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor.detach())
        self._groups = list(by_type.values())
        self._copies: list[list[Tensor]] = []

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether it is made of these tensors."""
        return len(tensors) == len(self._tensors) and all(map(is_, tensors, self._tensors))

    def take(self) -> None:
        """Remembers the present content."""
        if not self._copies:
            self._copies = [[torch.empty_like(tensor) for tensor in g] for g in self._groups]
        for tensors, copies in zip(self._groups, self._copies, strict=True):
            torch._foreach_copy_(copies, tensors)

    def put_back(self, where: Tensor | None = None) -> None:
        """Brings back the content remembered.

        Args:
            where: a truth value on the tensors' device, which is not read; None is true.
        """
        for tensors, copies in zip(self._groups, self._copies, strict=True):
            if where is None:
                torch._foreach_copy_(tensors, copies)
            else:
                _select(tensors, copies, where)


def _select(tensors: Sequence[Tensor], copies: Sequence[Tensor], where: Tensor) -> None:
    """``copies`` in place of ``tensors`` where a flag is set, in a few kernels for all of them.

    In integers: NaN times 0 is NaN.
    """
    kind = _INTEGERS[tensors[0].element_size()]
    now = [tensor.view(kind) for tensor in tensors]
    change = torch._foreach_sub([copy.view(kind) for copy in copies], now)
    torch._foreach_mul_(change, where.to(kind))
    torch._foreach_add_(now, change)


def tensors_of(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
    """Parameters, and the optimizer's state of them as far as it is on their device.

    Elsewhere are counts of steps alone, of optimizers that are not fused.
    """
    for parameter in parameters:
        yield parameter
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.device == parameter.device:
                yield value
