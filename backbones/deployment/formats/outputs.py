"""What a module returns, as a list."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def flatten(value: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a module as a list."""
    return [value] if isinstance(value, Tensor) else list(value)
