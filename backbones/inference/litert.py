"""LiteRT (TensorFlow Lite's successor) with XNNPACK as an inference engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import override

from backbones.deployment.formats.litert import to_litert
from backbones.extras import require
from backbones.inference.base import Engine, Program, Session, converted, installed_versions
from backbones.inference.board.models import LiteRTModel, engine_versions
from backbones.quiet import quiet


class LiteRTSession(Session):
    """An interpreter whose inputs are set once; XNNPACK is its default delegate."""

    def __init__(self, model: bytes, inputs: Sequence[Tensor], threads: int) -> None:
        arrays = [tensor.permute(0, 2, 3, 1).contiguous().numpy() for tensor in inputs]
        with quiet():
            self.model = LiteRTModel(model, threads, arrays)

    @override
    def run(self) -> None:
        self.model.run()

    @override
    def outputs(self) -> list[Tensor]:
        self.run()
        interpreter = self.model.interpreter
        found = []
        for entry in interpreter.get_output_details():
            tensor = torch.from_numpy(interpreter.get_tensor(entry["index"]))
            found.append(tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else tensor)
        return found


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
    converts = True

    def __init__(self, device: str = "cpu", threads: int = 1) -> None:
        super().__init__(device, threads)
        require("ai_edge_litert", extra="litert")

    @override
    def check_conversion(self) -> None:
        require("litert_torch", extra="litert-converter")

    @override
    def versions(self) -> dict[str, str]:
        return {**engine_versions(self.name), **installed_versions("litert-torch", "torch")}

    @override
    def compile(
        self, build: Callable[[], nn.Module], inputs: Sequence[Tensor], path: Path | None = None
    ) -> LiteRTProgram:
        model = converted(path, lambda: to_litert(build().eval(), inputs))
        return LiteRTProgram(model, inputs, self.threads)
