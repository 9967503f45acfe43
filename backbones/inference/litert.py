"""LiteRT (TensorFlow Lite's successor) with XNNPACK as an inference engine."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import override

from backbones.extras import require
from backbones.inference.base import Engine, Program, Session, converted, flatten


class LiteRTSession(Session):
    """An interpreter whose inputs are set once; XNNPACK is its default delegate."""

    def __init__(self, model: bytes, inputs: Sequence[Tensor], threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with _quiet():
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
        model = converted(path, lambda: _to_litert(build().eval(), inputs))
        return LiteRTProgram(model, inputs, self.threads)


def _to_litert(module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    with _quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litert_torch

        with torch.no_grad():
            outputs = flatten(module(*inputs))
        wrapped = litert_torch.to_channel_last_io(
            module,
            args=list(range(len(inputs))),
            outputs=[index for index, tensor in enumerate(outputs) if tensor.dim() == 4],
        )
        channels_last = tuple(tensor.permute(0, 2, 3, 1).contiguous() for tensor in inputs)
        model: bytes = litert_torch.convert(wrapped, channels_last).model_content()
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the converter and the interpreter print, natively too, unless they fail."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, source in zip((1, 2), saved, strict=True):
                os.dup2(source, target)
                os.close(source)
            if failed:
                sink.seek(0)
                os.write(2, sink.read())
