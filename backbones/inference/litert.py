"""LiteRT (TensorFlow Lite's successor) with XNNPACK as an inference engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import override

from backbones.deployment.formats.litert import to_litert
from backbones.extras import require
from backbones.inference.base import Engine, Program, Session, converted
from backbones.quiet import quiet


class LiteRTSession(Session):
    """An interpreter whose inputs are set once; XNNPACK is its default delegate."""

    def __init__(self, model: bytes, inputs: Sequence[Tensor], threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with quiet():
            self.interpreter = Interpreter(model_content=model, num_threads=threads)
            self.interpreter.allocate_tensors()
        for entry, tensor in zip(self.interpreter.get_input_details(), inputs, strict=True):
            array = tensor.permute(0, 2, 3, 1).contiguous().numpy()
            self.interpreter.set_tensor(entry["index"], array)

    @override
    def run(self) -> None:
        self.interpreter.invoke()

    @override
    def outputs(self) -> list[Tensor]:
        self.run()
        found = []
        for entry in self.interpreter.get_output_details():
            tensor = torch.from_numpy(self.interpreter.get_tensor(entry["index"]))
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
        require("ai_edge_litert", "litert_torch", extra="litert")

    @override
    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("ai-edge-litert", "litert-torch", "torch")}

    @override
    def compile(
        self, build: Callable[[], nn.Module], inputs: Sequence[Tensor], path: Path | None = None
    ) -> LiteRTProgram:
        model = converted(path, lambda: to_litert(build().eval(), inputs))
        return LiteRTProgram(model, inputs, self.threads)
