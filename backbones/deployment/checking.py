"""An exported network against the module that it was made of: how far apart, and how fast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from backbones.deployment.formats import Precision
from backbones.deployment.formats.outputs import flatten
from backbones.deployment.runtimes import Runtime
from backbones.errors import UserError
from backbones.inference.base import Session
from backbones.inference.board.turns import visit_and_share
from backbones.inference.measurement import Measurement

Array = NDArray[Any]

LARGEST: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2}
"""Of one number, in parts of the largest one of its output, that a file may differ by."""

MEAN = 0.5
"""Root mean square of the differences of int8 over that of the output. Beyond it there is more
error than signal in a quarter of the power."""

_VISITS = 5


@dataclass(frozen=True)
class Agreement:
    """How the outputs of a file and of PyTorch compare over some images.

    Attributes:
        images: compared.
        largest: difference of one number, relative to the largest one of its output on all images.
        mean: root mean square of the differences over that of PyTorch's outputs; the worst output.
    """

    images: int
    largest: float
    mean: float

    def check(self, precision: Precision, what: str) -> None:
        """Insists that a file is what was exported.

        Raises:
            UserError: if it differs too much.
        """
        limit = LARGEST.get(precision)
        value, expected = (self.mean, MEAN) if limit is None else (self.largest, limit)
        if not value <= expected:  # NaN too
            way_out = (
                "calibrate on images like those that it will see, or export fp32"
                if precision == "int8"
                else "export fp32"
                if precision == "fp16"
                else "take another format"
            )
            raise UserError(
                f"{what} differs from PyTorch by {value:.2g} of its output on {self.images} "
                f"images; expected at most {expected:g}: it is not written; {way_out}"
            )


def compare(module: nn.Module, runtime: Runtime, inputs: Iterable[Array]) -> Agreement:
    """Runs both on the same images.

    Args:
        module: in eval mode; images (N, 3, H, W) → a tensor, or a list of them.
        runtime: the same network from a file.
        inputs: batches, as the network expects them.
    """
    name = runtime.inputs[0].name
    totals: list[NDArray[np.float64]] = []
    count = 0
    for batch in inputs:
        with torch.inference_mode():
            wanted = [tensor.numpy() for tensor in flatten(module(torch.from_numpy(batch)))]
        found = list(runtime.run({name: batch}).values())
        # by output: largest difference, largest number, both sums of squares
        rows = [_row(one, other) for one, other in zip(found, wanted, strict=True)]
        totals.append(np.array(rows))
        count += len(batch)
    every = np.stack(totals)
    largest = every[:, :, 0].max(0) / np.maximum(every[:, :, 1].max(0), 1e-30)
    mean = np.sqrt(every[:, :, 2].sum(0) / np.maximum(every[:, :, 3].sum(0), 1e-30))
    return Agreement(count, float(largest.max()), float(mean.max()))


def _row(found: Array, wanted: Array) -> tuple[float, float, float, float]:
    if found.shape != wanted.shape:
        raise UserError(
            f"the exported network returns {found.shape} where PyTorch returns {wanted.shape}: it "
            "is not written; take another format"
        )
    difference = found.astype(np.float64) - wanted
    return (
        float(np.abs(difference).max()),
        float(np.abs(wanted).max()),
        float((difference**2).sum()),
        float((wanted.astype(np.float64) ** 2).sum()),
    )


class _Repeated(Session):
    """A runtime with inputs that stay the same, to be timed."""

    def __init__(self, runtime: Runtime, arrays: Sequence[Array]) -> None:
        self.runtime = runtime
        self.arrays = runtime.in_file(arrays)

    @override
    def run(self) -> None:
        self.runtime.infer(self.arrays)

    @override
    def outputs(self) -> list[Tensor]:
        return [torch.from_numpy(array) for array in self.runtime.infer(self.arrays)]


def latency(runtime: Runtime, *arrays: Array) -> Measurement:
    """Runtime of one inference in ms, on this machine, on the runtime's threads."""
    session = _Repeated(runtime, arrays)
    visits = [visit_and_share(session) for _ in range(_VISITS)]
    return Measurement.of(*zip(*visits, strict=True))
