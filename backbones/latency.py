"""Latency tables: what every candidate layer costs on a device, and what a network costs."""

from __future__ import annotations

import dataclasses
import math
import os
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from backbones.architecture import (
    SKIP,
    Architecture,
    HeadSpec,
    LayerSpec,
    StemSpec,
)
from backbones.errors import UserError
from backbones.files import write_json
from backbones.schema import load_versioned, named_file

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ConstantPart:
    """Everything that a search does not decide, and its runtime.

    Attributes:
        runtime: of all of it together, in the table's unit.
        stem: the first convolution.
        first: fixed layers before the searchable ones.
        last: fixed layers after them.
        head: the last convolution.
    """

    runtime: float
    stem: StemSpec
    first: tuple[LayerSpec, ...]
    last: tuple[LayerSpec, ...]
    head: HeadSpec


@dataclass(frozen=True)
class LayerRuntimes:
    """Runtimes of one searchable layer at its input shape.

    Attributes:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the depthwise convolution.
        input_size: height and width of the input in pixels.
        runtimes: by candidate (``3x3-6``, ``5x5-3-0.25``), in the table's unit.
    """

    in_channels: int
    out_channels: int
    stride: int
    input_size: tuple[int, int]
    runtimes: Mapping[str, float] = field(hash=False)

    def runtime(self, name: str) -> float | None:
        """Runtime of a candidate; None if the table does not have it.

        A candidate with squeeze-and-excitation that was not profiled costs what the same
        candidate costs without: its scaling factor (Eq. 14) is 1.0.
        """
        if name == SKIP:
            return 0.0
        if name in self.runtimes:
            return self.runtimes[name]
        return self.runtimes.get("-".join(name.split("-")[:2]))


@dataclass(frozen=True)
class LatencyTable:
    """Runtimes of all candidates on one device, at one image size.

    Attributes:
        name: what logs and tables call it.
        device: the device measured.
        runtime: the engine that ran the layers (TFLite, ONNX Runtime, PyTorch).
        unit: of every figure, usually ``ms``.
        input_size: height and width of the image in pixels.
        constant: what is not searched.
        layers: one entry a searchable layer, in order.
        source: where the figures come from.

    Raises:
        UserError: if a figure is negative or not finite, or there is no layer.
    """

    name: str
    device: str
    runtime: str
    unit: str
    input_size: tuple[int, int]
    constant: ConstantPart
    layers: tuple[LayerRuntimes, ...]
    source: str = ""

    def __post_init__(self) -> None:
        where = f"latency table '{self.name}'"
        if not self.layers:
            raise UserError(f"{where} has no layers; expected one entry a searchable layer")
        figures = {
            f"layers[{i}]: {name}": value
            for i, layer in enumerate(self.layers)
            for name, value in layer.runtimes.items()
        }
        figures["constant: runtime"] = self.constant.runtime
        for entry, value in figures.items():
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{where}: {entry} is {value}; expected a runtime of 0 or more")

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> LatencyTable:
        """Reads a table by name (``configs/latency``) or by path.

        Raises:
            UserError: if it is missing, not JSON, or not a latency table of this schema.
        """
        path = named_file(name_or_path, "latency table", "latency")
        table: LatencyTable = load_versioned(cls, path, "latency table", SCHEMA_VERSION)
        return table

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as JSON, whole or not at all."""
        write_json(path, {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)})


def layer_runtimes(
    architecture: Architecture, table: LatencyTable
) -> tuple[dict[int, float], dict[str, str]]:
    """Looks every searchable layer of a network up in a table.

    The k-th layer of a shape (channels, stride, input size) is looked up in the k-th row of that
    shape, so networks of the table's own search space meet exactly their rows.

    Returns:
        The runtime of every layer found, by its index in the architecture, and why the others
        are not covered, by part ("layers[3]", "stem").
    """
    constant = table.constant
    begin, end = len(constant.first), len(architecture.layers) - len(constant.last)
    uncovered = {
        name: "not the one that the table's constant part was measured with"
        for name, theirs, ours in (
            ("stem", architecture.stem, constant.stem),
            ("first layers", architecture.layers[:begin], constant.first),
            ("last layers", architecture.layers[end:], constant.last),
            ("head", architecture.head, constant.head),
        )
        if theirs != ours
    }
    rows: dict[tuple[int, int, int, tuple[int, int]], deque[LayerRuntimes]] = defaultdict(deque)
    for row in table.layers:
        rows[row.in_channels, row.out_channels, row.stride, row.input_size].append(row)
    found: dict[int, float] = {}
    sizes = input_sizes(architecture, table.input_size)
    for index in range(begin, end):
        layer, channels = architecture.layers[index], architecture.in_channels[index]
        shape = (channels, layer.out_channels, layer.stride, sizes[index])
        queue = rows.get(shape)
        found_row = (queue.popleft() if len(queue) > 1 else queue[0]) if queue else None
        runtime = found_row.runtime(layer.type_name) if found_row else None
        if layer.op == "ds" or runtime is None:
            uncovered[f"layers[{index}]"] = (
                f"{layer.type_name} with {channels} → {layer.out_channels} channels, stride "
                f"{layer.stride} at {sizes[index][0]}×{sizes[index][1]}"
            )
        else:
            found[index] = runtime
    return found, uncovered


def input_sizes(architecture: Architecture, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width in pixels of every layer's input."""
    reductions = (2, *architecture.reductions[:-1])
    return [
        (math.ceil(image_size[0] / stride), math.ceil(image_size[1] / stride))
        for stride in reductions
    ]


def predict_runtime(architecture: Architecture, table: LatencyTable) -> float:
    """Runtime of a network as the sum of its layers (Eq. 11), in the table's unit.

    Raises:
        UserError: naming what the table does not cover.
    """
    found, uncovered = layer_runtimes(architecture, table)
    if uncovered:
        raise not_covered(table, f"architecture '{architecture.name}'", uncovered)
    return table.constant.runtime + sum(found.values())


def not_covered(table: LatencyTable, what: str, uncovered: Mapping[str, str]) -> UserError:
    """The error that names what a table lacks: the first parts of ``layer_runtimes``' answer."""
    parts = "; ".join(f"{part}: {why}" for part, why in list(uncovered.items())[:3])
    return UserError(
        f"latency table '{table.name}' does not cover {what}: it lacks {len(uncovered)} parts, "
        f"{parts}; profile them, or use a table made for it"
    )


def covers(architecture: Architecture, table: LatencyTable) -> bool:
    """Whether :func:`predict_runtime` can answer."""
    return not layer_runtimes(architecture, table)[1]
