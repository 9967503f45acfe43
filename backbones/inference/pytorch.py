"""PyTorch itself as an inference engine, on a CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from typing_extensions import override

from backbones.deployment.formats.outputs import flatten
from backbones.errors import UserError
from backbones.inference.base import Engine, Operator, Place, Program, Session


class TorchSession(Session):
    """Eager inference in ``channels_last`` layout."""

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor], device: str, threads: int):
        self.device = torch.device(device)
        self.threads = threads
        self.module = module.to(self.device).to(memory_format=torch.channels_last)
        self.inputs = [
            tensor.to(self.device, memory_format=torch.channels_last) for tensor in inputs
        ]

    @torch.inference_mode()
    def _infer(self) -> list[Tensor]:
        return flatten(self.module(*self.inputs))

    @override
    def run(self) -> None:
        self._infer()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @override
    def outputs(self) -> list[Tensor]:
        return [tensor.float().clone().cpu() for tensor in self._infer()]

    @override
    def times(self, count: int) -> list[float]:
        """As :class:`Session`; by device events on CUDA, so that launches are not counted in."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return self._device_times(count) if self.device.type == "cuda" else super().times(count)
        finally:
            torch.set_num_threads(before)

    def _device_times(self, count: int) -> list[float]:
        events = [
            (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            for _ in range(count)
        ]
        for start, end in events:
            start.record()
            self._infer()
            end.record()
        torch.cuda.synchronize(self.device)
        return [start.elapsed_time(end) for start, end in events]


class TorchProgram(Program):
    """A module and its inputs."""

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor], device: str, threads: int):
        self.arguments = (module, inputs, device, threads)

    @override
    def load(self) -> TorchSession:
        return TorchSession(*self.arguments)

    @override
    def operators(self) -> list[Operator]:
        """By PyTorch's profiler, of the run after a first one that warms up."""
        session = self.load()
        session.times(1)
        cuda = session.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=activities) as profiler:
            session.times(1)
        found = []
        for event in profiler.events():
            microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
            if event.name.startswith("aten::") and microseconds:
                found.append(Operator(event.name, event.name, microseconds / 1e3))
        return found


class TorchEngine(Engine):
    """PyTorch, eager."""

    name = "torch"
    title = "PyTorch"
    precisions = MappingProxyType({"cpu": ("fp32",), "cuda": ("fp32", "fp16")})

    def __init__(self, device: str = "cpu", threads: int = 1, precision: str = "fp32") -> None:
        super().__init__(device, threads, precision)
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device is cuda, but PyTorch finds no CUDA device; use --device cpu")

    @override
    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    @override
    def compile(
        self,
        build: Callable[[], nn.Module],
        inputs: Sequence[Tensor],
        path: Path | None = None,
        place: Place = "whole",
    ) -> TorchProgram:
        dtype = torch.float16 if self.precision == "fp16" else torch.float32
        inputs = [tensor.to(dtype) for tensor in inputs]
        return TorchProgram(build().eval().to(dtype), inputs, self.device, self.threads)
