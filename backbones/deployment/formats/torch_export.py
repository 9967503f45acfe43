"""PyTorch's exported program (``torch.export``), which runs without the classes of its module."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

_LARGEST = 1 << 14
_SIDES = (2, 3)


def dynamic_sides(dynamic: Sequence[Mapping[int, str]], divisor: int = 1) -> tuple[Any, ...] | None:
    """What PyTorch's exporters are told of the sides that may have any length.

    Args:
        dynamic: of every input, the names of such sides, by their index; the same name in several
            inputs is the same length.
        divisor: heights and widths (sides 2 and 3) are multiples of it.

    Returns:
        None if every side is as in the examples.
    """
    known: dict[tuple[str, bool], Any] = {}

    def side(index: int, name: str) -> Any:
        multiple = divisor > 1 and index in _SIDES
        if (name, multiple) not in known:
            base = Dim(f"_{name}" if multiple else name, min=1, max=_LARGEST)
            known[name, multiple] = divisor * base if multiple else base
        return known[name, multiple]

    shapes = tuple({index: side(index, name) for index, name in sides.items()} for sides in dynamic)
    return shapes if any(shapes) else None


@contextlib.contextmanager
def any_length() -> Iterator[None]:
    """Lets the sides of a map have the length 1 as well as any other.

    PyTorch's exporters take a length of 1 for a special case, and would allow no image whose
    coarsest map has a side of 1.
    """
    patched = _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with warnings.catch_warnings(), torch.no_grad(), patched:
        warnings.simplefilter("ignore")
        yield


def to_program(
    module: nn.Module,
    inputs: Sequence[Tensor],
    *,
    dynamic: Sequence[Mapping[int, str]] = (),
    divisor: int = 1,
) -> ExportedProgram:
    """Traces a module in eval mode.

    Args:
        module: takes ``inputs`` as positional arguments; returns a tensor or a list of them.
        inputs: examples; a side that may have any length is longer than 1 in them.
        dynamic: see :func:`dynamic_sides`.
        divisor: likewise.
    """
    with any_length():
        return torch.export.export(
            module, tuple(inputs), dynamic_shapes=dynamic_sides(dynamic, divisor)
        )


def to_torch_export(
    module: nn.Module,
    inputs: Sequence[Tensor],
    *,
    dynamic: Sequence[Mapping[int, str]] = (),
    divisor: int = 1,
) -> bytes:
    """A ``.pt2`` file; arguments as for :func:`to_program`."""
    file = io.BytesIO()
    torch.export.save(to_program(module, inputs, dynamic=dynamic, divisor=divisor), file)
    return file.getvalue()
