"""The small JSON beside an exported file: what goes in, what comes out, and what it was made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backbones.deployment.formats import Format, Precision
from backbones.files import write_json
from backbones.schema import expect, load_versioned, to_versioned

SCHEMA_VERSION = 1
NETWORK = "network"
"""Name of the network of a file that holds one alone."""

Kind = Literal["backbone", "pyramid", "classifier", "detector"]
Layout = Literal["NCHW", "NHWC", ""]


@dataclass(frozen=True)
class TensorSpec:
    """An input or an output of a network.

    Attributes:
        name: by which :meth:`backbones.deployment.runtimes.Runtime.run` knows it.
        shape: in the file; None where a side may have any length.
        dtype: in the file, as NumPy names it.
        layout: of a map in the file; empty for what is not a map.
        meaning: in words.
        stride: of a map relative to the image.
        scale: of an integer type: the number is ``scale * (integer - zero_point)``.
        zero_point: see ``scale``.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    layout: Layout = ""
    meaning: str = ""
    stride: int | None = None
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Network:
    """One file.

    Attributes:
        file: its name, in the folder of the contract.
        inputs: in the order of the file.
        outputs: likewise.
    """

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Resizing:
    """How a photo becomes an image of the network's size.

    Attributes:
        rule: ``centre_crop``: the shorter side becomes ``size / crop_pct``, and the middle of
            ``size`` × ``size`` is cut out; ``shorter_side``: it becomes ``size``, or less where the
            longer one would pass ``max_size``; ``none``: any size will do.
        size: in pixels.
        crop_pct: of ``centre_crop``.
        max_size: of ``shorter_side``.
        interpolation: of the resizing.
        divisor: both sides are padded, right and below, to multiples of it.
        padding: value of what is padded, after normalisation.
    """

    rule: Literal["centre_crop", "shorter_side", "none"] = "none"
    size: int | None = None
    crop_pct: float | None = None
    max_size: int | None = None
    interpolation: Literal["bicubic", "bilinear", ""] = ""
    divisor: int = 1
    padding: float = 0.0


@dataclass(frozen=True)
class Preprocessing:
    """From a photo's pixels to the network's first input.

    Attributes:
        colour_order: of the three channels.
        value_range: of the pixels before the normalisation.
        mean: of each channel, in ``value_range`` and ``colour_order``; it is subtracted. None where
            the network normalises the pixels itself.
        std: what is divided by; None as ``mean``.
        resizing: before it.
    """

    colour_order: Literal["RGB", "BGR"] = "RGB"
    value_range: tuple[float, float] = (0.0, 255.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resizing: Resizing = Resizing()


@dataclass(frozen=True)
class Contract:
    """What a program has to know of an exported network to run it.

    Attributes:
        kind: what the network is.
        format: of its files.
        precision: of its weights and, in int8, of its activations.
        networks: by name; one, :data:`NETWORK`, of all kinds but a detector, and that has several
            where its format cannot hold it whole.
        preprocessing: of the image.
        architecture: of the backbone, as in its ``architecture.json``.
        labels: names of the classes, in the order of the outputs.
        detector: what turns the outputs of a detector's networks into boxes, classes and masks.
        opset: of ONNX.
        checks: how the file compared with PyTorch, its size, latency and accuracy.
        versions: of the packages that made it.

    Raises:
        UserError: if there is no network in it.
    """

    kind: Kind
    format: Format
    precision: Precision
    networks: Mapping[str, Network]
    preprocessing: Preprocessing
    architecture: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    detector: Mapping[str, Any] = field(default_factory=dict)
    opset: int | None = None
    checks: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(bool(self.networks), "networks", dict(self.networks), "at least one network")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the contract as JSON, whole or not at all."""
        write_json(path, to_versioned(self, SCHEMA_VERSION))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Contract:
        """Reads the contract of an exported file.

        Args:
            path: of the contract, or of an exported file of the same name beside it.

        Raises:
            UserError: if there is none, or it is damaged.
        """
        contract: Contract = load_versioned(
            cls, str(contract_path(path)), "contract", SCHEMA_VERSION
        )
        return contract


def contract_path(path: str | os.PathLike[str]) -> Path:
    """The contract that belongs to an exported file: ``NAME.json`` beside ``NAME.onnx``."""
    return Path(path).with_suffix(".json")
