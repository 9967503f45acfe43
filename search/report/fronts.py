"""Accuracy or AP against runtime, beside other networks: Figs. 1 and 7 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detection.report import TASK_NAMES
from search.report.charts import Chart, Point, front_chart
from search.report.runs import Run, Study
from search.studies.comparison.runtimes import RuntimeColumn, runtime_columns
from search.studies.comparison.tables import paper_results


@dataclass(frozen=True)
class Front:
    """A chart and the networks in it, numbered as there.

    Attributes:
        chart: of the networks.
        cost: header of what they cost.
        value: header of what they are worth.
        points: the networks.
    """

    chart: Chart
    cost: str
    value: str
    points: tuple[Point, ...]


def fronts(runs: Sequence[Run], studies: Sequence[Study]) -> list[Front]:
    """Every comparison that there are at least two networks for."""
    rows = [_row(run) for run in runs if run.part("detection").get("scores")]
    found = [*_classifiers(runs), *map(_searched, runs), *_detectors("these runs", rows)]
    for study in studies:
        if "rows" in study.content:
            found += _detectors(study.name, study.content["rows"])
        else:
            found.append(_trials(study))
    return [front for front in found if front and len(front.points) > 1]


def _front(title: str, cost: str, value: str, points: Sequence[Point], note: str = "") -> Front:
    ordered = tuple(sorted(points, key=lambda point: point.cost))
    chart = front_chart(title, cost, value, ordered)
    return Front(Chart(chart.title, chart.svg, note), cost, value, ordered)


def _row(run: Run) -> dict[str, Any]:
    """A run as a comparison has it: figures with their spread, here 0."""
    found = run.part("detection")
    dataset, scores = next(iter(found["scores"].items()))
    ap = {task: {"AP": [figures["AP"], 0.0]} for task, figures in scores.items()}
    return {"name": f"{found['cost']['backbone']}, {run.name}", "dataset": dataset,
            "cost": found["cost"], "scores": ap}  # fmt: skip


def _detectors(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Front]:
    """A front for every task, of rows that were evaluated on one data set."""
    if len({row.get("dataset") for row in rows}) != 1:
        return []
    macs = [row["cost"]["macs_backbone"] / 1e9 for row in rows]
    counted = RuntimeColumn("MACs of the trunk (G)", macs, "")
    axis = next((column for column in runtime_columns(rows) if all(column.values)), counted)
    tasks = dict.fromkeys(task for row in rows for task in row["scores"])
    return [
        _front(
            f"{TASK_NAMES.get(task, task)} AP of {name}",
            axis.header,
            f"{TASK_NAMES.get(task, task)} AP (%)",
            _points(rows, task, axis.values),
            axis.note,
        )
        for task in tasks
    ]


def _points(
    rows: Sequence[Mapping[str, Any]], task: str, costs: Sequence[float | None]
) -> list[Point]:
    """The rows that have both a cost and an AP of the task."""
    found = []
    for row, cost in zip(rows, costs, strict=True):
        mean, spread = row["scores"].get(task, {}).get("AP") or (None, None)
        if cost and mean is not None:
            found.append(Point(row["name"], float(cost), float(mean), float(spread or 0)))
    return found


def _searched(run: Run) -> Front | None:
    """All networks of one search, by the accuracy of the supernet's weights."""
    found = run.part("search")
    rows = {"found": [found], **{key: found.get(key, []) for key in ("family", "start", "samples")}}
    points = [
        Point(f"{row['architecture']} ({kind})", row["predicted_runtime"], row["val"]["top1"])
        for kind, group in rows.items()
        for row in group
        if row.get("val")
    ]
    if len(points) < 2 or not found.get("latency_table"):
        return None
    cost = f"predicted ({found['unit']}), {found['latency_table']}"
    note = "With the supernet's weights, before any training of their own."
    return _front(f"networks of {run.name}", cost, "held-out top-1 (%)", points, note)


def _classifiers(runs: Sequence[Run]) -> list[Front]:
    """Classifiers of one data set and one table; on ImageNet beside the paper's Table I."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        found = run.part("classification")
        if found.get("predicted_runtime") is not None and found.get("latency_table"):
            data = str(run.config.get("CLASSIFICATION.DATASET"))
            groups.setdefault((data, found["latency_table"], found["unit"]), []).append(run)
    fronts_found = []
    for (data, table, unit), group in groups.items():
        points = [
            Point(f"{found['architecture']}, {run.name}", found["predicted_runtime"],
                  found["val"]["top1"])
            for run in group
            for found in [run.part("classification")]
        ]  # fmt: skip
        note = ""
        if (data, table) == ("imagenet", "pixel1"):
            paper = paper_results()
            points += [
                Point(row["name"], row["runtime"], row["top1"], published=True)
                for row in paper["classification"]
                if row.get("runtime")
            ]
            note = f"Hollow: as printed in {paper['source']}."
        cost = f"predicted ({unit}), {table}"
        fronts_found.append(_front(f"classifiers on {data}", cost, "top-1 (%)", points, note))
    return fronts_found


def _trials(study: Study) -> Front | None:
    """Networks that methods of search found, each trained by one recipe."""
    points = [
        Point(f"{trial['method']}, seed {trial.get('seed', 0)}", trial["runtime"], trial["top1"])
        for trial in study.content["trials"]
        if isinstance(trial.get("runtime"), int | float)
        and isinstance(trial.get("top1"), int | float)
        and "method" in trial
    ]
    unit = study.content.get("unit", "ms")
    title = f"networks found in {study.name}"
    return _front(title, f"predicted ({unit})", "held-out top-1 (%)", points) if points else None
