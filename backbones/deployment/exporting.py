"""A network with its weights becomes a file that has been run, compared and timed."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backbones.deployment.checking import Agreement, compare, latency
from backbones.deployment.contract import (
    NETWORK,
    Contract,
    Kind,
    Network,
    Preprocessing,
    TensorSpec,
    contract_path,
)
from backbones.deployment.folding import folded
from backbones.deployment.formats import SUFFIXES, Format, Precision
from backbones.deployment.formats.litert import to_litert
from backbones.deployment.formats.onnx import OPSET, to_onnx
from backbones.deployment.formats.torch_export import to_torch_export
from backbones.deployment.quantisation import Calibration, quantised
from backbones.deployment.runtimes import Runtime, open_model
from backbones.errors import UserError
from backbones.extras import require
from backbones.files import write_atomic
from backbones.inference.hardware import device_name

IMAGE = "image"
"""Name of the input."""

PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "litert": ("fp32", "fp16", "int8"),
    "torch": ("fp32",),
}

_SIDES = {0: "batch", 2: "height", 3: "width"}
_PACKAGES = ("torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")
_ENGINES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "litert": ("ai_edge_litert", "litert_torch", "ai_edge_quantizer"),
    "torch": (),
}

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Exportable:
    """A network, and what its contract says of it.

    Attributes:
        kind: what it is.
        module: in eval mode; images (N, 3, H, W), normalised → a tensor, or a list of them.
        outputs: name, meaning and stride of each.
        preprocessing: of the images.
        size: height and width, where a format holds them fixed.
        architecture: of the backbone, as in its ``architecture.json``.
        labels: names of the classes.
    """

    kind: Kind
    module: nn.Module
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing
    size: tuple[int, int]
    architecture: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def with_preprocessing_inside(self) -> Exportable:
        """The same, but the network normalises the pixels itself."""
        mean, std = self.preprocessing.mean, self.preprocessing.std
        if mean is None or std is None:
            return self
        return dataclasses.replace(
            self,
            module=Normalising(self.module, mean, std).eval(),
            preprocessing=dataclasses.replace(self.preprocessing, mean=None, std=None),
        )


class Normalising(nn.Module):
    """A network that takes pixels as they are."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor | list[Tensor]:
        """Pixels (N, 3, H, W) from 0 to 255 → what the network returns."""
        found: Tensor | list[Tensor] = self.network((pixels - self.mean) / self.std)
        return found


def check_request(output: Path, kind: Format, precision: Precision) -> None:
    """Insists on what can be known before anything is loaded.

    Raises:
        UserError: if the file's name does not fit its format, the format lacks the precision, or
            a package is not installed.
    """
    suffix = SUFFIXES[kind]
    if output.suffix != suffix:
        raise UserError(
            f"--output is '{output}', but --format {kind} writes {suffix} files; name it "
            f"'{output.with_suffix(suffix)}'"
        )
    if precision not in PRECISIONS[kind]:
        others = [name for name, known in PRECISIONS.items() if precision in known]
        raise UserError(
            f"--precision is {precision}, which --format {kind} does not have; use --format "
            f"{' or '.join(others)}"
        )
    if _ENGINES[kind]:
        require(*_ENGINES[kind], extra={"onnx": "onnxruntime", "litert": "litert-converter"}[kind])


def write_exported(
    network: Exportable,
    output: Path,
    kind: Format,
    precision: Precision,
    images: Sequence[Array],
    calibration: Calibration = (),
    judge: Callable[[Runtime], Mapping[str, Any]] | None = None,
) -> Contract:
    """Converts a network, runs the file on images, and writes it if it does what PyTorch does.

    Args:
        network: to export.
        output: the file; its contract lies beside it.
        kind: of file.
        precision: of the file.
        images: inputs (1, 3, H, W) to compare on, at least one.
        calibration: for int8.
        judge: finds further figures of the file for its contract, such as its accuracy.

    Raises:
        UserError: if the format lacks an operator of the network, the file differs too much, or it
            cannot be written.
    """
    check_request(output, kind, precision)
    assert images
    model = quantised(convert(network, kind), kind, precision, calibration)
    runtime = open_model(model, kind)
    inputs = [*images, *_other_shapes(images[0], network, kind)]
    agreement = compare(network.module, runtime, inputs)
    agreement.check(precision, f"the {precision} network in {kind} format")
    further = judge(runtime) if judge else {}
    contract = Contract(
        kind=network.kind,
        format=kind,
        precision=precision,
        networks={NETWORK: _described(runtime, network, output.name)},
        preprocessing=network.preprocessing,
        architecture=network.architecture,
        labels=network.labels,
        opset=OPSET if kind == "onnx" else None,
        checks={**checks_of(agreement, model, runtime, images[0]), **further},
        versions=package_versions(),
    )
    write_atomic(output, model)
    contract.save(contract_path(output))
    return contract


def convert(network: Exportable, kind: Format) -> bytes:
    """The float file of a network, with its batch norms folded.

    ONNX and PyTorch's have batch, height and width as they come; LiteRT has one image of
    ``network.size``.

    Raises:
        UserError: if the format cannot hold it.
    """
    divisor = network.preprocessing.resizing.divisor
    height, width = network.size
    single = torch.zeros(1, 3, height, width)
    with said_of_converters(kind, "network", "an architecture"):
        if kind == "litert":
            return to_litert(folded(network.module, [single]), [single])
        # sides of an example are told apart, and none is 1, which exporters take for fixed
        example = [torch.zeros(2, 3, height, width + divisor)]
        module = folded(network.module, example, dynamic=[_SIDES], divisor=divisor)
        if kind == "torch":
            return to_torch_export(module, example, dynamic=[_SIDES], divisor=divisor)
        return to_onnx(
            module,
            example,
            input_names=[IMAGE],
            output_names=[spec.name for spec in network.outputs],
            dynamic=[_SIDES],
            divisor=divisor,
        )


@contextlib.contextmanager
def said_of_converters(kind: Format, what: str, other: str) -> Iterator[None]:
    """Turns what a converter raises into a user's error.

    Args:
        kind: format of the file.
        what: is converted.
        other: that could be converted, with its article.

    Raises:
        UserError: with the reason and the way out.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # converters raise many types, and whole tracebacks as text
        raise UserError(
            f"--format {kind} cannot hold this {what} ({_first_reason(error)}); take another "
            f"format, or {other} without that operator"
        ) from error


def _first_reason(error: BaseException) -> str:
    """The first line of the error that a chain of them began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _other_shapes(image: Array, network: Exportable, kind: Format) -> list[Array]:
    """Two images at once, and one of another size, for formats that take them."""
    if kind == "litert":
        return []
    divisor = network.preprocessing.resizing.divisor
    larger = np.pad(image, ((0, 0), (0, 0), (0, 2 * divisor), (0, divisor)), mode="reflect")
    return [np.concatenate([image, image[:, :, ::-1, ::-1]]), larger]


def _described(runtime: Runtime, network: Exportable, file: str) -> Network:
    (given,) = runtime.inputs
    meaning = (
        "pixels from 0 to 255"
        if network.preprocessing.mean is None
        else "pixels, normalised by mean and std"
    )
    outputs = tuple(
        dataclasses.replace(spec, name=known.name, meaning=known.meaning, stride=known.stride)
        for spec, known in zip(runtime.outputs, network.outputs, strict=True)
    )
    return Network(file, (dataclasses.replace(given, name=IMAGE, meaning=meaning),), outputs)


def checks_of(agreement: Agreement, model: bytes, runtime: Runtime, image: Array) -> dict[str, Any]:
    """What a contract says of how a file was tried; it is timed on ``image``."""
    measured = latency(runtime, image)
    return {
        "agreement": dataclasses.asdict(agreement),
        "megabytes": round(len(model) / 1e6, 3),
        "latency": {
            "milliseconds": round(measured.runtime, 3),
            "spread": round(measured.spread, 3),
            "share": round(min(measured.share, 1.0), 3),
            "input": list(image.shape),
            "device": device_name("cpu"),
            "threads": 1,
        },
    }


def package_versions() -> dict[str, str]:
    """Of Python and the packages that make files."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
