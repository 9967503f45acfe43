"""One ``spnas auto`` on a page: the answer, the front of its targets, data, stages and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.figures import shown
from detection.report import TASK_NAMES
from search.auto.data_facts import DATA_FILE, DataFacts
from search.auto.outcome import OUTCOME_FILE, Outcome, Row, Stage
from search.report.answer import Answer, Tile
from search.report.charts import Chart
from search.report.targets import Network, targets_chart

_ROLES = {"found": "found", "start": "start", "baseline": "baseline"}
_OTHER_PACE = 0.25
"""Part by which measured runtimes are off before the plot has them at the table's pace."""

_SCALES = {"APs": "small", "APm": "medium", "APl": "large"}


@dataclass(frozen=True)
class Whole:
    """What one ``spnas auto`` has left.

    Attributes:
        folder: of the whole.
        outcome: its ``auto.json``.
        data: its ``data.json``; None where it has gone.
    """

    folder: Path
    outcome: Outcome
    data: DataFacts | None

    @classmethod
    def read(cls, folder: Path) -> Whole | None:
        """A folder of ``spnas auto``; None where it is another one.

        Raises:
            UserError: if a file in it is damaged.
        """
        if not (folder / OUTCOME_FILE).is_file():
            return None
        data = DataFacts.load(folder) if (folder / DATA_FILE).is_file() else None
        return cls(folder, Outcome.load(folder), data)

    @property
    def tasks(self) -> list[str]:
        """What detections are scored for."""
        found = [task for row in self.outcome.rows for task in row.scores]
        return list(dict.fromkeys(found))

    @property
    def found(self) -> list[Path]:
        """Run folders of the networks found, in the order of the targets."""
        return self._folders([row for row in self.outcome.rows if row.role == "found"])

    @property
    def compared(self) -> list[Path]:
        """Run folders of the answer and of what it is compared with, then of all others."""
        first = (self.outcome.answer, self.outcome.baseline, self.outcome.start)
        return self._folders([*filter(None, first), *self.outcome.rows])

    def _folders(self, rows: Sequence[Row]) -> list[Path]:
        return list(dict.fromkeys(self.folder / row.folder for row in rows))

    @property
    def charts(self) -> list[Chart]:
        """The front, one chart for each task."""
        return [_chart(self.outcome, task) for task in self.tasks]

    @property
    def files(self) -> list[tuple[Row, str, str, str, str]]:
        """Every exported file: whose, its path, format and part, size, and runtime."""
        return [
            (
                row,
                file.file,
                " ".join(filter(None, [file.format, file.part])),
                size(file.bytes),
                "–" if file.runtime is None else f"{shown(file.runtime)} ms",
            )
            for row in self.outcome.rows
            for file in row.exports
        ]

    @property
    def pace_note(self) -> str:
        """How much slower the machine was than its table has it; empty where it was not."""
        pace = self.outcome.pace
        return f"on a machine {pace:.2g} times as slow as by the table" * _is_other_pace(pace)

    def answer(self) -> Answer:
        """The network found for the first target, against the baseline and the start."""
        outcome, row = self.outcome, self.outcome.answer
        if row is None:
            done = sum(stage.seconds is not None for stage in outcome.stages)
            return Answer("Not finished yet", f"{done} of {len(outcome.stages)} stages done.", ())
        height, width = outcome.input_size
        words = [f"Found for {row.target:g} {outcome.unit}"] if row.target else ["Found"]
        words.append(f"on {outcome.device} with {outcome.engine}, images of {height}×{width}.")
        words += [
            f"The {_ROLES[other.role]} is {other.name}{f': {other.note}' if other.note else ''}."
            for other in (outcome.baseline, self.outcome.start)
            if other
        ]
        return Answer(row.name, " ".join(words), tuple(self._tiles(row)))

    def _tiles(self, row: Row) -> list[Tile]:
        outcome = self.outcome
        tiles = [
            Tile(f"{TASK_NAMES.get(task, task)} AP", _percent(row.ap(task)), self._against(task))
            for task in row.scores
        ]
        if row.predicted is not None:
            off = row.off_target
            aim = "" if off is None else f"target {row.target:g} {outcome.unit} ({off:+.1f} %), "
            note = f"{aim}by table {outcome.table}"
            tiles.append(Tile("predicted", f"{shown(row.predicted)} {outcome.unit}", note))
        if row.measured is not None:
            note = ", ".join(filter(None, [outcome.measured_with, self.pace_note]))
            tiles.append(Tile("measured", f"{shown(row.measured)} ms", note))
        tiles.append(Tile("parameters", f"{row.params / 1e6:.2f} M", "with a classifier"))
        if row.exports:
            kinds = ", ".join(dict.fromkeys(file.format for file in row.exports))
            total = size(sum(file.bytes for file in row.exports))
            tiles.append(Tile("files", total, f"{len(row.exports)}, {kinds}"))
        budget = "" if outcome.budget is None else f"budget {took(outcome.budget)}"
        tiles.append(Tile("time for all", took(outcome.seconds), budget))
        return tiles

    def _against(self, task: str) -> str:
        row = self.outcome.answer
        assert row is not None
        own, words = row.ap(task), []
        for other in (self.outcome.baseline, self.outcome.start):
            theirs = other.ap(task) if other else None
            if other and own is not None and theirs is not None:
                words.append(f"{own - theirs:+.1f} to the {_ROLES[other.role]}")
        scales = [(name, row.ap(task, metric)) for metric, name in _SCALES.items()]
        return ", ".join([*words, *(f"{name} {v:.1f}" for name, v in scales if v is not None)])


def _chart(outcome: Outcome, task: str) -> Chart:
    pace = outcome.pace if _is_other_pace(outcome.pace) else 1.0
    networks = [
        Network(
            number,
            row.role,
            ap,
            outcome.on_scale(row),
            None if row.measured is None else row.measured / pace,
        )
        for number, row in enumerate(outcome.rows, start=1)
        if (ap := row.ap(task)) is not None
    ]
    targets = [row.target for row in outcome.rows if row.target]
    name = TASK_NAMES.get(task, task)
    return targets_chart(f"{name} AP", f"runtime ({outcome.unit})", networks, targets)


def _is_other_pace(pace: float) -> bool:
    return abs(pace - 1) > _OTHER_PACE


def took(seconds: float) -> str:
    """A time in words: ``40 s``, ``12 min``, ``1 h 24 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def size(count: int) -> str:
    """A size in words: ``640 kB``, ``18.2 MB``."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def stage_rows(stages: Sequence[Stage]) -> list[tuple[Stage, str, str]]:
    """Every stage with the time that it took, and the time that was planned for it."""
    return [
        (
            stage,
            "not run yet" if stage.seconds is None else took(stage.seconds),
            "–" if stage.estimated is None else took(stage.estimated),
        )
        for stage in stages
    ]
