"""What all parts of the benchmark have in common."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.inference.hardware import available_cores
from detection.data.digits import DigitsSize, prepare_digits

Figures = Mapping[str, Any]
Measurement = tuple[str, Callable[[], Figures]]
"""What is measured, and what measures it."""


@dataclass(frozen=True)
class Setting:
    """Where, and how thoroughly.

    Attributes:
        device: ``cpu`` or ``cuda``.
        tiny: small networks, images and counts, to try everything on a CPU.
        folder: for data and runs.
        only: precisions to measure; empty takes all.
    """

    device: str
    tiny: bool
    folder: Path
    only: tuple[str, ...] = ()

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those to measure that a training has on the device, PyTorch's own first."""
        known = ("float32", *(("float16",) if self.device == "cuda" else ()), "bfloat16")
        return tuple(name for name in known if name in self.only or not self.only)

    @property
    def processes(self) -> tuple[str, ...]:
        """The argument of a tool that trains: one GPU, or this CPU."""
        return ("--num-gpus", "1" if self.device == "cuda" else "0")

    def environment(self, share: int = 1) -> dict[str, str]:
        """Of the tools: data sets in the folder, and no W&B.

        Args:
            share: tools that run at the same time.
        """
        return {
            **os.environ,
            "DETECTRON2_DATASETS": str((self.folder / "datasets").resolve()),
            "OMP_NUM_THREADS": str(max(available_cores() // share, 1)),
            "PYTHONWARNINGS": "ignore",
            "WANDB_MODE": "disabled",
            **({} if self.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}),
        }

    @property
    def digits(self) -> DigitsSize:
        """How many digits the short runs train on, and are evaluated on."""
        return DigitsSize(8, 6, 64, 64) if self.tiny else DigitsSize(240, 24, 1297, 500)

    def prepare_digits(self) -> None:
        """Makes the digits' data set, unless it is there."""
        prepare_digits(self.folder / "datasets", self.digits)

    def fresh(self, name: str) -> Path:
        """An empty place for a run, which makes its folder itself."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Part:
    """Measurements that share a process.

    Attributes:
        title: for people.
        seconds: that it may take on a GPU.
        measurements: in order; one that fails does not end those after it.
    """

    title: str
    seconds: int
    measurements: Callable[[Setting], Iterator[Measurement]]
