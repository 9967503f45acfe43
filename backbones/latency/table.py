"""Latency tables: what every candidate layer costs on a device."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backbones.architecture import Activation, HeadSpec, LayerSpec, StemSpec
from backbones.errors import UserError
from backbones.files import write_json
from backbones.latency.correction import Correction, LeastCosts
from backbones.layer_types import SKIP, LayerType
from backbones.schema import Upgrades, load_versioned, named_file, to_versioned

SCHEMA_VERSION = 2

_LATER = ("activation", "correction_refused", "noise", "warning")
"""Fields that tables of this schema were without at first."""


@dataclass(frozen=True)
class ConstantPart:
    """Everything that a search does not decide, and its runtime.

    Attributes:
        runtime: of all of it together, in the table's unit.
        stem: the first convolution.
        first: fixed layers before the searchable ones.
        last: fixed layers after them.
        head: the last convolution, with pooling and classifier after it; None where the feature
            pyramid takes its place.
        fpn_channels: of the feature pyramid; 0 without one.
        spread: relative, as of the layers; None where it was not recorded.
    """

    runtime: float
    stem: StemSpec
    first: tuple[LayerSpec, ...]
    last: tuple[LayerSpec, ...]
    head: HeadSpec | None
    fpn_channels: int = 0
    spread: float | None = None


@dataclass(frozen=True)
class LayerRuntimes:
    """Runtimes of one searchable layer at its input shape.

    Attributes:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the depthwise convolution.
        input_size: height and width of the input in pixels.
        runtimes: by type (in JSON ``3x3-6``, ``5x5-3-0.25``), in the table's unit.
        spreads: by type: half the interquartile range of the repeats over their median;
            empty where it was not recorded.
    """

    in_channels: int
    out_channels: int
    stride: int
    input_size: tuple[int, int]
    runtimes: Mapping[LayerType, float] = field(hash=False)
    spreads: Mapping[LayerType, float] = field(default_factory=dict, hash=False)

    def runtime(self, layer_type: LayerType) -> float | None:
        """Runtime of a candidate as measured; None if the table does not have it.

        Where no candidate was profiled with squeeze-and-excitation, the scaling factor of Eq. 14
        is taken as 1.0: it costs what the same candidate costs without.
        """
        if layer_type == SKIP:
            return 0.0
        if layer_type not in self.runtimes and not any(known.has_se for known in self.runtimes):
            layer_type = dataclasses.replace(layer_type, se_ratio=0)
        return self.runtimes.get(layer_type)


@dataclass(frozen=True)
class LatencyTable:
    """Runtimes of all candidates on one device, at one image size.

    Attributes:
        name: what logs and tables call it.
        device: the device measured.
        engine: that ran the layers (``onnxruntime``, ``litert``, ``torch``, …).
        unit: of every figure, usually ``ms``.
        input_size: height and width of the image in pixels.
        constant: what is not searched.
        layers: one row per searchable layer, in order; a row may stand for all layers of its shape.
        source: where the figures come from.
        versions: of the engine and of what converted the layers.
        threads: of one inference; None where it was not recorded.
        precision: of weights and feature maps.
        activation: of the searchable layers.
        date: of the measurement (ISO 8601).
        correction: from sums of layers to whole networks; None where sums are taken as they are.
        correction_refused: why the correction that was fitted is not taken; empty where there is
            one, or none was fitted.
        noise: median spread of all that was measured; None where it is not known.
        warning: why the figures are not to be trusted; empty where nothing is known against them.

    Raises:
        UserError: if a figure is negative or not finite, there is no layer, or the correction
            makes more of a network count as faster.
    """

    name: str
    device: str
    engine: str
    unit: str
    input_size: tuple[int, int]
    constant: ConstantPart
    layers: tuple[LayerRuntimes, ...]
    source: str = ""
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    threads: int | None = None
    precision: str = "float32"
    activation: Activation = "relu"
    date: str = ""
    correction: Correction | None = None
    correction_refused: str = ""
    noise: float | None = None
    warning: str = ""

    def __post_init__(self) -> None:
        where = f"latency table '{self.name}'"
        if not self.layers:
            raise UserError(f"{where} has no layers; expected one entry per searchable layer")
        figures = {
            f"layers[{i}]: {kind}{layer_type}": value
            for i, layer in enumerate(self.layers)
            for kind, entries in (("", layer.runtimes), ("spread of ", layer.spreads))
            for layer_type, value in entries.items()
        }
        figures["constant: runtime"] = self.constant.runtime
        for entry, value in figures.items():
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{where}: {entry} is {value}; expected a number of 0 or more")
        if self.correction:
            for name in ("intercept", "scale", "per_layer", "per_se"):
                value = getattr(self.correction, name)
                if not math.isfinite(value):
                    raise UserError(f"{where}: correction: {name} is {value}; expected a number")
            if fault := self.correction.turns_round(self.least):
                raise UserError(
                    f"{where}: correction: {fault}; profile the device again when nothing else "
                    "runs on it, or delete the correction from the file to take plain sums"
                )

    @property
    def task(self) -> str:
        """``detection`` where the constant part has a feature pyramid, else ``classification``."""
        return "detection" if self.constant.fpn_channels else "classification"

    @property
    def least(self) -> LeastCosts:
        """The smallest costs among the parts, as measured."""
        added = [
            runtime - row.runtimes[plain]
            for row in self.layers
            for candidate, runtime in row.runtimes.items()
            if candidate.has_se
            and (plain := dataclasses.replace(candidate, se_ratio=0)) in row.runtimes
        ]
        return LeastCosts(
            self.constant.runtime,
            min((min(row.runtimes.values(), default=0.0) for row in self.layers), default=0.0),
            max(min(added, default=0.0), 0.0),
        )

    @property
    def caution(self) -> str:
        """The warning in a sentence that names the table; empty without one."""
        return f"latency table '{self.name}' is {self.warning}" if self.warning else ""

    @property
    def corrected_constant(self) -> float:
        """Runtime of the constant part in a whole network."""
        if self.correction is None:
            return self.constant.runtime
        return self.correction.intercept + self.correction.scale * self.constant.runtime

    def corrected_layer(self, runtime: float, layer_type: LayerType) -> float:
        """What a layer that takes ``runtime`` alone takes in a whole network."""
        fit = self.correction
        if fit is None or layer_type == SKIP:
            return runtime
        corrected = fit.scale * runtime + fit.per_layer + fit.per_se * layer_type.has_se
        return max(corrected, 0.0)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> LatencyTable:
        """Reads a table by name (``configs/latency``) or by path.

        Raises:
            UserError: if it is missing, not JSON, or not a latency table of a schema that is read.
        """
        path = named_file(name_or_path, "latency table", "latency")
        table: LatencyTable = load_versioned(cls, path, "latency table", SCHEMA_VERSION, _UPGRADES)
        return table

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready.

        What tables were without at first is left out at its default, and how the head would do at
        another width, which is nothing to a table.
        """
        data = to_versioned(self, SCHEMA_VERSION)
        if self.constant.head:
            del data["constant"]["head"]["grows"]
        for item in dataclasses.fields(self):
            if item.name in _LATER and data[item.name] == item.default:
                del data[item.name]
        return data

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as JSON, whole or not at all."""
        write_json(path, self.to_dict())


def _name_the_engine(body: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 has the engine under ``runtime``."""
    return {"engine" if key == "runtime" else key: value for key, value in body.items()}


_UPGRADES: Upgrades = {1: _name_the_engine}
