"""ONNX Runtime as an inference engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
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
from backbones.inference.base import Engine, Operator, Place, Program, Session, converted
from backbones.inference.examples import calibration, quantised_maps
from backbones.inference.onnx_parts import inside_network
from backbones.scratch import scratch_folder

_INTEGERS = {"tensor(int8)": "int8", "tensor(uint8)": "uint8"}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeSession(Session):
    """An ``InferenceSession`` with its example inputs, which stay on the device."""

    def __init__(self, model: bytes, inputs: Sequence[Tensor], options: Any, device: str) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(model, options, [_PROVIDERS[device]])
        self.binding = self.session.io_binding()
        for entry, tensor in zip(self.session.get_inputs(), inputs, strict=True):
            array = tensor.numpy()
            if entry.type in _INTEGERS:
                array = quantised_maps(array, _INTEGERS[entry.type])
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)
            self.binding.bind_ortvalue_input(entry.name, value)
        for entry in self.session.get_outputs():
            self.binding.bind_output(entry.name, device, 0)

    @override
    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    @override
    def outputs(self) -> list[Tensor]:
        self.run()
        return [torch.from_numpy(array) for array in self.binding.copy_outputs_to_cpu()]


class OnnxRuntimeProgram(Program):
    """A serialized ONNX model and its inputs."""

    def __init__(self, model: bytes, inputs: Sequence[Tensor], device: str, threads: int) -> None:
        self.model = model
        self.inputs = inputs
        self.device = device
        self.threads = threads

    def _options(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return options

    @override
    def load(self) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(self.model, self.inputs, self._options(), self.device)

    @override
    def operators(self) -> list[Operator]:
        """By ONNX Runtime's own profiler, of the run after a first one that warms up."""
        options = self._options()
        options.enable_profiling = True
        with scratch_folder("operators") as folder:
            options.profile_file_prefix = str(folder / "profile")
            session = OnnxRuntimeSession(self.model, self.inputs, options, self.device)
            session.run()
            session.run()
            events = json.loads(Path(session.session.end_profiling()).read_text(encoding="utf-8"))
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
        require("onnxruntime", "onnx", "onnxscript", extra="onnxruntime")
        import onnxruntime

        known = onnxruntime.get_available_providers()
        if _PROVIDERS[device] not in known:
            raise UserError(
                f"--device is {device}, but this ONNX Runtime has only {', '.join(known)}; install "
                "onnxruntime-gpu, or use --device cpu"
            )

    @override
    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("onnxruntime", "onnx", "torch")}

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
