"""ONNX Runtime as an inference engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from backbones.deployment.formats.onnx import to_onnx
from backbones.deployment.quantisation import onnx_fp16, onnx_int8
from backbones.errors import UserError
from backbones.extras import require
from backbones.inference.base import (
    Engine,
    Operator,
    Place,
    Program,
    Session,
    converted,
    installed_versions,
)
from backbones.inference.board.models import (
    CannotMeasureError,
    OnnxRuntimeModel,
    check_provider,
    engine_versions,
    onnx_options,
)
from backbones.inference.examples import calibration, quantised_maps
from backbones.inference.onnx_parts import inside_network
from backbones.scratch import scratch_folder

_INTEGERS = {"tensor(int8)": "int8", "tensor(uint8)": "uint8"}


class OnnxRuntimeSession(Session):
    """An ``InferenceSession`` with its example inputs, which stay on the device."""

    def __init__(self, model: bytes, inputs: Sequence[Tensor], options: Any, device: str) -> None:
        self.model = OnnxRuntimeModel(model, options, device)
        entries = self.model.session.get_inputs()
        arrays = [tensor.numpy() for tensor in inputs]
        self.model.feed(
            [
                quantised_maps(array, _INTEGERS[entry.type]) if entry.type in _INTEGERS else array
                for array, entry in zip(arrays, entries, strict=True)
            ]
        )

    @override
    def run(self) -> None:
        self.model.run()

    @override
    def outputs(self) -> list[Tensor]:
        self.run()
        return [torch.from_numpy(array) for array in self.model.binding.copy_outputs_to_cpu()]


class OnnxRuntimeProgram(Program):
    """A serialized ONNX model and its inputs."""

    def __init__(self, model: bytes, inputs: Sequence[Tensor], device: str, threads: int) -> None:
        self.model = model
        self.inputs = inputs
        self.device = device
        self.threads = threads

    @override
    def load(self) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(self.model, self.inputs, onnx_options(self.threads), self.device)

    @override
    def operators(self) -> list[Operator]:
        """By ONNX Runtime's own profiler, of the run after a first one that warms up."""
        options = onnx_options(self.threads)
        options.enable_profiling = True
        with scratch_folder("operators") as folder:
            options.profile_file_prefix = str(folder / "profile")
            session = OnnxRuntimeSession(self.model, self.inputs, options, self.device)
            session.run()
            session.run()
            profile = Path(session.model.session.end_profiling())
            events = json.loads(profile.read_text(encoding="utf-8"))
        nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith("_kernel_time")]
        return [
            Operator(
                node["name"].removesuffix("_kernel_time"),
                node["args"]["op_name"],
                node["dur"] / 1e3,
            )
            for node in nodes[len(nodes) // 2 :]
        ]


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime with PyTorch's own exporter."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    precisions = MappingProxyType({"cpu": ("fp32", "fp16", "int8"), "cuda": ("fp32", "fp16")})
    converts = True

    def __init__(self, device: str = "cpu", threads: int = 1, precision: str = "fp32") -> None:
        super().__init__(device, threads, precision)
        require("onnxruntime", extra="onnxruntime")
        try:
            check_provider(device)
        except CannotMeasureError as error:
            raise UserError(str(error)) from None

    @override
    def check_conversion(self) -> None:
        require("onnx", "onnxscript", extra="onnxruntime")

    @override
    def versions(self) -> dict[str, str]:
        return {**engine_versions(self.name), **installed_versions("onnx", "torch")}

    @override
    def compile(
        self,
        build: Callable[[], nn.Module],
        inputs: Sequence[Tensor],
        path: Path | None = None,
        place: Place = "whole",
    ) -> OnnxRuntimeProgram:
        model = converted(path, lambda: self._convert(build().eval(), inputs, place))
        return OnnxRuntimeProgram(model, inputs, self.device, self.threads)

    def _convert(self, module: nn.Module, inputs: Sequence[Tensor], place: Place) -> bytes:
        model = to_onnx(module, inputs)
        if self.precision == "fp16":
            return onnx_fp16(model)
        if self.precision == "int8":
            return inside_network(onnx_int8(model, calibration(inputs)), place)
        return model
