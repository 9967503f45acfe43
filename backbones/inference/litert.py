"""LiteRT (TensorFlow Lite's successor) with XNNPACK as an inference engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from backbones.deployment.formats.litert import to_litert
from backbones.deployment.quantisation import litert_fp16, litert_int8
from backbones.extras import require
from backbones.inference.base import Engine, Place, Program, Session, converted, installed_versions
from backbones.inference.board.models import LiteRTModel, engine_versions
from backbones.inference.examples import calibration
from backbones.quiet import quiet


class LiteRTSession(Session):
    """An interpreter whose inputs are set once; XNNPACK is its default delegate."""

    def __init__(self, model: bytes, inputs: Sequence[Tensor], threads: int) -> None:
        arrays = [tensor.permute(0, 2, 3, 1).contiguous().numpy() for tensor in inputs]
        with quiet():
            self.model = LiteRTModel(model, threads)
        entries = self.model.interpreter.get_input_details()
        self.model.feed([_quantised(array, e) for array, e in zip(arrays, entries, strict=True)])

    @override
    def run(self) -> None:
        self.model.run()

    @override
    def outputs(self) -> list[Tensor]:
        self.run()
        interpreter = self.model.interpreter
        found = []
        for entry in interpreter.get_output_details():
            array = interpreter.get_tensor(entry["index"])
            tensor = torch.from_numpy(_dequantised(array, entry))
            found.append(tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else tensor)
        return found


def _quantised(array: NDArray[np.float32], entry: Mapping[str, Any]) -> NDArray[Any]:
    """An array as an input has it, which may be in int8."""
    scale, zero_point = entry["quantization"]
    if not scale:
        return array
    bounds = np.iinfo(entry["dtype"])
    steps = np.clip(np.round(array / scale) + zero_point, bounds.min, bounds.max)
    return steps.astype(entry["dtype"])


def _dequantised(array: NDArray[Any], entry: Mapping[str, Any]) -> NDArray[np.float32]:
    """What an output, which may be in int8, stands for."""
    scale, zero_point = entry["quantization"]
    return ((array.astype(np.float32) - zero_point) * scale if scale else array).astype(np.float32)


class LiteRTProgram(Program):
    """A ``.tflite`` flatbuffer and its inputs."""

    def __init__(self, model: bytes, inputs: Sequence[Tensor], threads: int) -> None:
        self.arguments = (model, inputs, threads)

    @override
    def load(self) -> LiteRTSession:
        return LiteRTSession(*self.arguments)


class LiteRTEngine(Engine):
    """LiteRT, converted by litert-torch, channels last as TensorFlow Lite has them."""

    name = "litert"
    title = "LiteRT"
    precisions = MappingProxyType({"cpu": ("fp32", "fp16", "int8")})
    converts = True

    def __init__(self, device: str = "cpu", threads: int = 1, precision: str = "fp32") -> None:
        super().__init__(device, threads, precision)
        require("ai_edge_litert", extra="litert")

    @override
    def check_conversion(self) -> None:
        quantiser = () if self.precision == "fp32" else ("ai_edge_quantizer",)
        require("litert_torch", *quantiser, extra="litert-converter")

    @override
    def versions(self) -> dict[str, str]:
        quantiser = () if self.precision == "fp32" else ("ai-edge-quantizer",)
        converters = installed_versions("litert-torch", *quantiser, "torch")
        return {**engine_versions(self.name), **converters}

    @override
    def compile(
        self,
        build: Callable[[], nn.Module],
        inputs: Sequence[Tensor],
        path: Path | None = None,
        place: Place = "whole",
    ) -> LiteRTProgram:
        model = converted(path, lambda: self._convert(build().eval(), inputs))
        return LiteRTProgram(model, inputs, self.threads)

    def _convert(self, module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
        """Inputs and outputs are int8 in a full int8 file, so parts of a network need nothing."""
        model = to_litert(module, inputs)
        if self.precision == "fp16":
            return litert_fp16(model)
        return litert_int8(model, calibration(inputs)) if self.precision == "int8" else model
