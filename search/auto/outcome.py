"""``auto.json``: what one ``spnas auto`` came to, for its table and its report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backbones.files import write_json
from backbones.schema import load_versioned, to_versioned

SCHEMA_VERSION = 1
OUTCOME_FILE = "auto.json"
"""In the folder of the whole."""

Role = Literal["found", "start", "baseline"]
"""``found`` by the search at a target; the ``start`` of the search; the published ``baseline``."""


@dataclass(frozen=True)
class ExportedFile:
    """A file for a device.

    Attributes:
        file: relative to the folder of the whole.
        bytes: its size.
        format: ``onnx``, ``litert`` or ``torch``.
        part: of the detector: ``image``, ``boxes``, ``masks``; empty for a whole network.
        runtime: measured in ms; None where it was not.
    """

    file: str
    bytes: int
    format: str
    part: str = ""
    runtime: float | None = None


@dataclass(frozen=True)
class Row:
    """One trained detector.

    Attributes:
        name: of its network.
        role: why it was trained.
        folder: of its run, relative to the folder of the whole.
        scores: of the test set, in percent: by task (``bbox``, ``segm``) and metric (``AP``,
            ``APs``, …); None where there is nothing to find.
        params: of the network with a classifier of 1000 classes, as in the final table.
        target: runtime that it was searched for, in the table's unit; None for the others.
        predicted: runtime by the table in its unit; None where the table does not cover it.
        measured: runtime in ms of the backbone with its pyramid; None where it was not measured.
        note: what has to be known of it, such as that a baseline is narrowed, in half a line.
        exports: its files.
    """

    name: str
    role: Role
    folder: str
    scores: Mapping[str, Mapping[str, float | None]] = field(hash=False)
    params: int
    target: float | None = None
    predicted: float | None = None
    measured: float | None = None
    note: str = ""
    exports: tuple[ExportedFile, ...] = ()

    @property
    def off_target(self) -> float | None:
        """How far the predicted runtime is from the target, in percent of it."""
        if not self.target or self.predicted is None:
            return None
        return 100 * (self.predicted / self.target - 1)

    def ap(self, task: str = "bbox", metric: str = "AP") -> float | None:
        """A figure of the scores; None where it is missing."""
        return self.scores.get(task, {}).get(metric)


@dataclass(frozen=True)
class Stage:
    """One step of the whole.

    Attributes:
        title: what it does, in half a line.
        command: as it is typed; empty where the step is no command of its own.
        folder: of its run, relative to the folder of the whole; empty without one.
        seconds: that it took, over all resumes; None where it has not run.
        estimated: seconds that the plan had for it; None where it had none.
    """

    title: str
    command: str = ""
    folder: str = ""
    seconds: float | None = None
    estimated: float | None = None


@dataclass(frozen=True)
class Outcome:
    """All that a page and the final table need; figures of the runs are in their own folders.

    Attributes:
        command: that made it all, as it is typed.
        dataset: that AP is of.
        table: name of the latency table.
        device: that the table is of.
        engine: that the table was made with.
        input_size: height and width in pixels of the images that the table is for.
        rows: detectors: those found in the order of their targets, the start, the baseline. The
            first one found is the answer.
        stages: in their order.
        unit: of targets and predicted runtimes.
        measured_with: engine, device, threads and image size of the measured runtimes.
        budget: seconds that were asked for; None without a budget.
        hardware: that all of it ran on.
        commit: of the code; None outside of a checkout.
        versions: of libraries.
    """

    command: str
    dataset: str
    table: str
    device: str
    engine: str
    input_size: tuple[int, int]
    rows: tuple[Row, ...]
    stages: tuple[Stage, ...]
    unit: str = "ms"
    measured_with: str = ""
    budget: float | None = None
    hardware: str = ""
    commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def answer(self) -> Row | None:
        """The first detector found; None where the search has found none yet."""
        return next((row for row in self.rows if row.role == "found"), None)

    @property
    def baseline(self) -> Row | None:
        """The published backbone that was trained by the same recipe; None without one."""
        return next((row for row in self.rows if row.role == "baseline"), None)

    @property
    def start(self) -> Row | None:
        """The detector that the search started from; None without one."""
        return next((row for row in self.rows if row.role == "start"), None)

    @property
    def pace(self) -> float:
        """How many times slower the machine was than its table has it: the start's, measured.

        1 where that is not known.
        """
        start = self.start
        if start is None or not start.predicted or not start.measured:
            return 1.0
        return start.measured / start.predicted

    def on_scale(self, row: Row) -> float | None:
        """A runtime on the table's scale: predicted, or else measured, less the machine's pace."""
        if row.predicted is not None or row.measured is None:
            return row.predicted
        return row.measured / self.pace

    @property
    def seconds(self) -> float:
        """That all stages took so far."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes :data:`OUTCOME_FILE` into a folder, whole or not at all."""
        path = Path(folder) / OUTCOME_FILE
        write_json(path, to_versioned(self, SCHEMA_VERSION))
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Outcome:
        """Reads a folder's :data:`OUTCOME_FILE`.

        Raises:
            UserError: if it is missing or damaged.
        """
        path = str(Path(folder) / OUTCOME_FILE)
        outcome: Outcome = load_versioned(cls, path, "outcome", SCHEMA_VERSION)
        return outcome


def scores_of(results: Mapping[str, Any]) -> tuple[str, dict[str, dict[str, float | None]]]:
    """The first data set, and its scores, of the ``detection`` part of a ``results.json``."""
    dataset, scores = next(iter(results["scores"].items()))
    return dataset, {task: dict(found) for task, found in scores.items()}
