"""Exported files in the engines that run them: NumPy in, NumPy out."""

from __future__ import annotations

import abc
import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from backbones.deployment.contract import NETWORK, Contract, TensorSpec, contract_path
from backbones.deployment.formats import FORMAT_OF, SUFFIXES, Format
from backbones.errors import UserError
from backbones.extras import require

Array: TypeAlias = "NDArray[Any]"


class Runtime(abc.ABC):
    """A network that is loaded and ready to run.

    Maps are (N, C, H, W) here, and numbers are float32, whatever the file has: what it has is in
    :attr:`inputs` and :attr:`outputs`.

    Attributes:
        inputs: of the file, in its order.
        outputs: likewise.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Args:
            arrays: by the names of :attr:`inputs`.

        Returns:
            By the names of :attr:`outputs`.
        """
        found = self.infer(self.in_file([arrays[spec.name] for spec in self.inputs]))
        return {
            spec.name: _from_file(array, spec)
            for spec, array in zip(self.outputs, found, strict=True)
        }

    def in_file(self, arrays: Sequence[Array]) -> list[Array]:
        """Inputs in their order, as the file has them."""
        return [_to_file(array, spec) for array, spec in zip(arrays, self.inputs, strict=True)]

    @abc.abstractmethod
    def infer(self, arrays: Sequence[Array]) -> list[Array]:
        """One inference on arrays as the file has them, in the order of inputs and outputs."""


class OnnxRuntime(Runtime):
    """ONNX Runtime on the CPU."""

    def __init__(self, model: bytes | str, threads: int = 1) -> None:
        require("onnxruntime", extra="onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        self.inputs = tuple(_onnx_spec(entry) for entry in self.session.get_inputs())
        self.outputs = tuple(_onnx_spec(entry) for entry in self.session.get_outputs())
        self._names = [spec.name for spec in self.inputs]

    @override
    def infer(self, arrays: Sequence[Array]) -> list[Array]:
        found: list[Array] = self.session.run(None, dict(zip(self._names, arrays, strict=True)))
        return found


def _onnx_spec(entry: Any) -> TensorSpec:
    shape = tuple(side if isinstance(side, int) else None for side in entry.shape)
    dtype = {"tensor(float)": "float32", "tensor(float16)": "float16"}.get(entry.type)
    dtype = dtype or re.sub(r"tensor\((.*)\)", r"\1", entry.type)
    return TensorSpec(entry.name, shape, dtype, "NCHW" if len(shape) == 4 else "")


class LiteRuntime(Runtime):
    """LiteRT on the CPU, with XNNPACK."""

    def __init__(self, model: bytes, threads: int = 1) -> None:
        require("ai_edge_litert", extra="litert")
        from ai_edge_litert.interpreter import Interpreter

        from backbones.quiet import quiet

        with quiet():
            self.interpreter = Interpreter(model_content=model, num_threads=threads)
            self.interpreter.allocate_tensors()
        self._given = self.interpreter.get_input_details()
        self._found = self.interpreter.get_output_details()
        self.inputs = tuple(_litert_spec(entry) for entry in self._given)
        self.outputs = tuple(_litert_spec(entry) for entry in self._found)

    @override
    def infer(self, arrays: Sequence[Array]) -> list[Array]:
        for entry, array in zip(self._given, arrays, strict=True):
            self.interpreter.set_tensor(entry["index"], array)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(entry["index"]) for entry in self._found]


def _litert_spec(entry: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(int(side) for side in entry["shape"])
    scale, zero_point = entry["quantization"]
    return TensorSpec(
        str(entry["name"]),
        shape,
        np.dtype(entry["dtype"]).name,
        "NHWC" if len(shape) == 4 else "",
        scale=float(scale) or None,
        zero_point=int(zero_point) if scale else None,
    )


class TorchRuntime(Runtime):
    """PyTorch, of an exported program; only open files that you trust."""

    def __init__(self, path: str, threads: int = 1) -> None:
        torch = import_module("torch")
        self.threads = threads
        program = torch.export.load(path)
        self.module = program.module()
        inputs = program.graph_signature.user_inputs
        outputs = program.graph_signature.user_outputs
        values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
        self.inputs = tuple(_torch_spec(name, values[name]) for name in inputs)
        self.outputs = tuple(_torch_spec(name, values[name]) for name in outputs)

    @override
    def infer(self, arrays: Sequence[Array]) -> list[Array]:
        torch = import_module("torch")
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.no_grad():
                found = self.module(*map(torch.from_numpy, arrays))
        finally:
            torch.set_num_threads(before)
        return [
            tensor.numpy() for tensor in ([found] if isinstance(found, torch.Tensor) else found)
        ]


def _torch_spec(name: str, value: Any) -> TensorSpec:
    shape = tuple(side if isinstance(side, int) else None for side in value.shape)
    dtype = str(value.dtype).removeprefix("torch.")
    return TensorSpec(name, shape, dtype, "NCHW" if len(shape) == 4 else "")


def _to_file(array: Array, spec: TensorSpec) -> Array:
    """An array as the file has it."""
    if spec.layout == "NHWC":
        array = array.transpose(0, 2, 3, 1)
    if spec.scale is not None and spec.zero_point is not None:
        bounds = np.iinfo(spec.dtype)
        array = np.clip(np.round(array / spec.scale) + spec.zero_point, bounds.min, bounds.max)
    return np.ascontiguousarray(array, dtype=spec.dtype)


def _from_file(array: Array, spec: TensorSpec) -> Array:
    """An array of the file, channels first and in numbers."""
    if spec.scale is not None and spec.zero_point is not None:
        array = (array.astype(np.float32) - spec.zero_point) * np.float32(spec.scale)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    return array.transpose(0, 3, 1, 2) if spec.layout == "NHWC" else array


def open_model(model: bytes, kind: Format, threads: int = 1) -> Runtime:
    """A network that is in memory: what a function of ``formats/`` or ``quantisation`` returned."""
    if kind == "onnx":
        return OnnxRuntime(model, threads)
    if kind == "litert":
        return LiteRuntime(model, threads)
    import io

    return TorchRuntime(io.BytesIO(model), threads)  # type: ignore[arg-type]


def open_exported(
    path: str | os.PathLike[str], network: str = NETWORK, threads: int = 1
) -> Runtime:
    """An exported file, ready to run; inputs and outputs have the names of its contract.

    Args:
        path: of the file (``.onnx``, ``.tflite`` or ``.pt2``) or of its contract. Without a
            contract the names are those in the file.
        network: which one of the contract's.
        threads: of one inference.

    Raises:
        UserError: if there is no such file, it is damaged, or its engine is not installed.
    """
    path = Path(path)
    contract = Contract.load(path) if contract_path(path).is_file() else None
    if contract and (path.suffix == ".json" or network != NETWORK):
        path = path.with_name(contract.networks[network].file)
    if path.suffix not in FORMAT_OF:
        expected = ", ".join(SUFFIXES.values())
        raise UserError(f"'{path}' is no exported network; expected a file that ends in {expected}")
    if not path.is_file():
        raise UserError(f"no exported network at '{path}'; check the path")
    try:
        runtime = open_model(path.read_bytes(), FORMAT_OF[path.suffix], threads)
    except UserError:
        raise
    except Exception as error:  # engines raise many types for a broken file
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"cannot load '{path}' ({reason}); export it again") from None
    if contract:
        runtime.inputs = contract.networks[network].inputs
        runtime.outputs = contract.networks[network].outputs
    return runtime
