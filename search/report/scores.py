"""AP by object scale and class, and how it differs from a baseline's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detection.report import COLUMNS, TASK_NAMES
from detection.scoring import METRICS
from search.report.runs import Run


@dataclass(frozen=True)
class Cell:
    """A figure in percent, and what it has more than the baseline; None where there is none."""

    value: float | None
    difference: float | None = None


@dataclass(frozen=True)
class ScoreTable:
    """AP of one data set.

    Attributes:
        dataset: its name.
        columns: of the table by scale.
        rows: for boxes, masks or keypoints, one cell a column.
        classes: for every class, one cell a task, in the order of the rows.
    """

    dataset: str
    columns: tuple[str, ...]
    rows: dict[str, list[Cell]]
    classes: dict[str, list[Cell]]


def score_tables(run: Run, baseline: Run | None) -> list[ScoreTable]:
    """A table for every data set that a detector was evaluated on.

    Args:
        run: of a detector, or of a search on one.
        baseline: another one; its figures count where they are of the same data set.
    """
    theirs = baseline.part("detection").get("scores", {}) if baseline else {}
    return [
        _table(dataset, scores, theirs.get(dataset, {}))
        for dataset, scores in run.part("detection").get("scores", {}).items()
    ]


def _table(
    dataset: str,
    scores: Mapping[str, Mapping[str, float | None]],
    theirs: Mapping[str, Mapping[str, float | None]],
) -> ScoreTable:
    def cells(task: str, names: Sequence[str]) -> list[Cell]:
        return [_cell(scores[task].get(name), theirs.get(task, {}).get(name)) for name in names]

    named = dict.fromkeys(name for task in scores for name in scores[task] if "-" in name)
    return ScoreTable(
        dataset,
        tuple(COLUMNS),
        {TASK_NAMES.get(task, task): cells(task, METRICS) for task in scores},
        {name[3:]: [cells(task, [name])[0] for task in scores] for name in named},
    )


def _cell(value: float | None, other: float | None) -> Cell:
    return Cell(value, None if value is None or other is None else value - other)
