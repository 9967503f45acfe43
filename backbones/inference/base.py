"""What an inference engine is: it compiles a module once, and times and runs the result."""

from __future__ import annotations

import abc
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn

from backbones.errors import UserError
from backbones.files import write_atomic
from backbones.inference.board.turns import wall_clock
from backbones.inference.hardware import available_cores

logger = logging.getLogger(__name__)

Place = Literal["whole", "first", "middle", "last"]
"""Which part of a network a module is: all of it, or one that hands maps on, or takes them over.

In an int8 network, layers pass int8 maps to each other. A part that is compiled by itself takes and
returns such maps where other layers are before and behind it, and float32 at the network's ends.
"""


@dataclass(frozen=True)
class Operator:
    """What one operator of a network takes, as the engine's own profiler reports it.

    Attributes:
        name: of the node, as the engine calls it.
        kind: of operation (``Conv``, ``aten::convolution``).
        runtime: of one run in ms.
    """

    name: str
    kind: str
    runtime: float


class Session(abc.ABC):
    """A network that is loaded and ready to run on its example inputs."""

    @abc.abstractmethod
    def run(self) -> None:
        """One inference; the outputs are dropped."""

    @abc.abstractmethod
    def outputs(self) -> list[Tensor]:
        """The outputs of one inference, in the layout of the PyTorch module."""

    def times(self, count: int) -> list[float]:
        """Wall-clock ms of ``count`` inferences, one by one.

        A session whose library has a number of threads for the whole process sets the engine's
        for the time being.
        """
        return wall_clock(self.run, count)


class Program(abc.ABC):
    """A network in the form that an engine loads. Takes no memory but its weights'."""

    @abc.abstractmethod
    def load(self) -> Session:
        """A session; what it allocates is freed with it."""

    def operators(self) -> list[Operator]:
        """The operators of one inference, in the order in which they ran.

        Raises:
            UserError: if the engine has no profiler.
        """
        raise UserError(
            "this engine reports no operators to Python; take --engine onnxruntime or torch for a "
            "breakdown"
        )


class Engine(abc.ABC):
    """An inference engine on one device with a fixed number of threads.

    Args:
        device: ``cpu`` or ``cuda``.
        threads: of one inference on a CPU.
        precision: one of ``PRECISIONS``; a module is quantised by random inputs, whose ranges are
            those of normalised maps: enough to time it, not to classify with it.

    Raises:
        UserError: if its packages are not installed, or it cannot use the device, or has not this
            precision there.
    """

    name: str
    title: str
    precisions: Mapping[str, tuple[str, ...]] = MappingProxyType({"cpu": ("fp32",)})
    """Where it can run networks, and in which of ``PRECISIONS``."""
    converts: bool = False
    """Whether ``compile`` keeps a converted model in ``path``."""

    def __init__(self, device: str = "cpu", threads: int = 1, precision: str = "fp32") -> None:
        if threads < 1:
            raise UserError(f"--threads is {threads}; expected 1 or more")
        if device not in self.precisions:
            raise UserError(
                f"--device is {device}; {self.title} runs on {' or '.join(self.precisions)} here: "
                f"use --device {next(iter(self.precisions))}"
            )
        if precision not in (known := self.precisions[device]):
            raise UserError(
                f"--precision is {precision}; {self.title} has {' and '.join(known)} on {device}: "
                f"use --precision {known[0]}, or another --engine"
            )
        if device == "cpu" and threads > (cores := available_cores()):
            logger.warning(
                "%d threads, but this process may use %d cores: they wait for each other, and "
                "their times say little",
                threads,
                cores,
            )
        self.device = device
        self.threads = threads
        self.precision = precision

    def check_conversion(self) -> None:  # noqa: B027 - nothing to insist on, as a rule
        """Insists on what converts modules, where that can be missing while the engine is here.

        Raises:
            UserError: naming the package, and where there is one.
        """

    @abc.abstractmethod
    def versions(self) -> dict[str, str]:
        """Version of every package that the figures depend on."""

    @abc.abstractmethod
    def compile(
        self,
        build: Callable[[], nn.Module],
        inputs: Sequence[Tensor],
        path: Path | None = None,
        place: Place = "whole",
    ) -> Program:
        """Converts a module in eval mode, for inputs of exactly these shapes.

        Args:
            build: makes the module, which takes ``inputs`` as positional arguments and returns a
                tensor or several. Not called where ``path`` has the converted model.
            inputs: maps (1, C, H, W) in float32.
            path: keeps the converted model, for engines that have such a file.
            place: which part of a network it is.
        """


def converted(path: Path | None, convert: Callable[[], bytes]) -> bytes:
    """The model in ``path``; made by ``convert``, and kept there, if it is not there yet."""
    if path and path.exists():
        return path.read_bytes()
    model = convert()
    if path:
        write_atomic(path, model)
    return model


def installed_versions(*packages: str) -> dict[str, str]:
    """The versions of packages, of those that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
