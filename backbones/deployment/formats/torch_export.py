"""PyTorch's exported program (``torch.export``), which runs without the classes of its module."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram


def to_program(
    module: nn.Module, inputs: Sequence[Tensor], *, dynamic: Sequence[Mapping[int, str]] = ()
) -> ExportedProgram:
    """Traces a module in eval mode.

    Args:
        module: takes ``inputs`` as positional arguments; returns a tensor or a list of them.
        inputs: examples; a side that is dynamic is longer than 1 in them.
        dynamic: of every input, the sides that may have any length, by their index, with a name.
    """
    shapes = tuple(dict.fromkeys(sides, Dim.DYNAMIC) for sides in dynamic) or None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(module, tuple(inputs), dynamic_shapes=shapes)


def to_torch_export(
    module: nn.Module, inputs: Sequence[Tensor], *, dynamic: Sequence[Mapping[int, str]] = ()
) -> bytes:
    """A ``.pt2`` file; arguments as for :func:`to_program`."""
    file = io.BytesIO()
    torch.export.save(to_program(module, inputs, dynamic=dynamic), file)
    return file.getvalue()
