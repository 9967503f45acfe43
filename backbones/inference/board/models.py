"""Models in the engines that a device may have: from a file to something that can be visited."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .turns import wall_clock

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
MODULES = {"onnxruntime": ("onnxruntime",), "litert": ("ai_edge_litert", "tflite_runtime")}
"""By engine: the modules that it may be; the first that is installed counts."""

_PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
_ONNX_TYPES = {"float": "float32", "float16": "float16", "int8": "int8", "uint8": "uint8"}


class CannotMeasureError(Exception):
    """What keeps models from being timed here, and the way out."""


class OnnxRuntimeModel:
    """A model in ONNX Runtime, with inputs that stay on the device.

    Args:
        model: content of an ONNX file.
        options: of :func:`onnx_options`.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, model: bytes, options: Any, device: str) -> None:
        import onnxruntime

        self.device = device
        self.session = onnxruntime.InferenceSession(model, options, [PROVIDERS[device]])
        self.binding = self.session.io_binding()

    def feed(self, arrays: Sequence[Any]) -> None:
        """Sets the inputs, in their order, for all inferences to come."""
        import onnxruntime

        for entry, array in zip(self.session.get_inputs(), arrays):
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device, 0)
            self.binding.bind_ortvalue_input(entry.name, value)
        for entry in self.session.get_outputs():
            self.binding.bind_output(entry.name, self.device, 0)

    def noise(self) -> list[Any]:
        """Inputs in the shapes and types that the model has."""
        entries = self.session.get_inputs()
        types = [_ONNX_TYPES[entry.type[len("tensor(") : -1]] for entry in entries]
        return [_noise(entry.shape, kind) for entry, kind in zip(entries, types)]

    def run(self) -> None:
        """One inference; the outputs stay where they are."""
        self.session.run_with_iobinding(self.binding)

    def times(self, count: int) -> list[float]:
        """As :func:`wall_clock`."""
        return wall_clock(self.run, count)


def onnx_options(threads: int) -> Any:
    """Session options with a number of threads for one inference, and no warnings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


class LiteRTModel:
    """A model in LiteRT, with inputs that are set once; XNNPACK is its default delegate.

    Args:
        model: content of a ``.tflite`` file.
        threads: of one inference.
    """

    def __init__(self, model: bytes, threads: int) -> None:
        library = importlib.import_module(f"{_installed('litert')}.interpreter")
        self.interpreter = library.Interpreter(model_content=model, num_threads=threads)
        self.interpreter.allocate_tensors()

    def feed(self, arrays: Sequence[Any]) -> None:
        """Sets the inputs, in their order, for all inferences to come."""
        for entry, array in zip(self.interpreter.get_input_details(), arrays):
            self.interpreter.set_tensor(entry["index"], array)

    def noise(self) -> list[Any]:
        """Inputs in the shapes and types that the model has."""
        entries = self.interpreter.get_input_details()
        return [_noise(entry["shape"].tolist(), entry["dtype"]) for entry in entries]

    def run(self) -> None:
        """One inference."""
        self.interpreter.invoke()

    def times(self, count: int) -> list[float]:
        """As :func:`wall_clock`."""
        return wall_clock(self.run, count)


def _noise(shape: Sequence[int], kind: Any) -> Any:
    """Standard normal numbers, or all integers of a type alike."""
    import numpy

    rng = numpy.random.default_rng(0)
    if numpy.issubdtype(kind, numpy.integer):
        limits = numpy.iinfo(kind)
        return rng.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)
    return rng.standard_normal(shape).astype(kind)


def _installed(engine: str) -> str:
    for name in MODULES[engine]:
        if importlib.util.find_spec(name):
            return name
    raise CannotMeasureError(
        f"{_PACKAGES[engine]} is not installed for this Python ({sys.executable}); get it with: "
        f"python3 -m pip install {_PACKAGES[engine]} numpy"
    )


def engine_versions(engine: str) -> dict[str, str]:
    """The engine's package, and its version."""
    name = _installed(engine)
    module = importlib.import_module(name)
    package = name.replace("_", "-")
    return {package: getattr(module, "__version__", None) or importlib.metadata.version(package)}


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keeps what native code prints there."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def load_model(
    engine: str, path: Path, threads: int, device: str
) -> OnnxRuntimeModel | LiteRTModel:
    """A model that is ready to be visited.

    Raises:
        CannotMeasureError: if the engine does not take it.
    """
    model: OnnxRuntimeModel | LiteRTModel
    try:
        if engine == "onnxruntime":
            model = OnnxRuntimeModel(path.read_bytes(), onnx_options(threads), device)
        else:
            with _silent_stderr():  # one line at every load says that XNNPACK is there
                model = LiteRTModel(path.read_bytes(), threads)
        model.feed(model.noise())
        return model
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        having = " ".join(" ".join(pair) for pair in engine_versions(engine).items())
        raise CannotMeasureError(
            f"{having} cannot load '{path.name}' ({reason}); install a newer one, or copy the "
            "folder again"
        ) from None


def check_provider(device: str) -> None:
    """Insists on an ONNX Runtime that runs on a device, since it would take the CPU instead.

    Raises:
        CannotMeasureError: with what it has.
    """
    import onnxruntime

    known = onnxruntime.get_available_providers()
    if PROVIDERS[device] not in known:
        raise CannotMeasureError(
            f"--device is {device}, but this ONNX Runtime has only {', '.join(known)}; install "
            "onnxruntime-gpu, or use --device cpu"
        )
