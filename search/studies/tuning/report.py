"""Results of tuning: the best λ of every solver, and Fig. 9."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from tabulate import tabulate

from backbones.figures import shown
from backbones.files import atomic_path
from search.studies.markdown import beside
from search.studies.tuning.worker import TuningTask

_LINES = ("-", "--", "-.", ":")


def study_record(task: TuningTask, study: Any) -> dict[str, Any]:
    """A study as JSON: its finished trials in the order in which they ended."""
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    ended.sort(key=lambda trial: (trial.datetime_complete, trial.number))
    return {
        "solver": task.solver,
        "seed": task.seed,
        "max_epochs": task.fidelities.max_epochs,
        "trials": [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "lambda": trial.params.get("lambda"),
                **{
                    key: trial.user_attrs.get(key)
                    for key in ("epochs", "accuracy", "runtime", "value")
                },
            }
            for trial in ended
        ],
    }


def full_trials(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The trials that were searched to the end at full fidelity."""
    return [
        trial
        for trial in record["trials"]
        if trial["state"] == "complete" and trial["epochs"] == record["max_epochs"]
    ]


def progress_curve(record: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(epochs spent so far, best value of a full search so far) after every trial.

    An attempt that was killed is none.
    """
    full = {trial["number"] for trial in full_trials(record)}
    trials = [trial for trial in record["trials"] if trial["state"] != "fail"]
    spent = itertools.accumulate(trial["epochs"] or 0.0 for trial in trials)
    curve, best = [], -np.inf
    for epochs, trial in zip(spent, trials, strict=True):
        if trial["number"] in full:
            best = max(best, trial["value"])
        if best > -np.inf:
            curve.append((epochs, best))
    return curve


def summary_rows(records: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Per solver: studies, trials, the best λ with its runtime, and the best value's spread.

    A trial whose worker was killed is counted once, where it was made again.
    """
    rows = []
    for solver in dict.fromkeys(record["solver"] for record in records):
        mine = [record for record in records if record["solver"] == solver]
        best = [max(full, key=lambda t: t["value"]) for full in map(full_trials, mine) if full]
        if not best:
            continue
        values = [trial["value"] for trial in best]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        top = max(best, key=lambda trial: trial["value"])
        trials = sum(t["state"] != "fail" for record in mine for t in record["trials"])
        value = f"{statistics.fmean(values):.2f} ± {spread:.2f}"
        rows.append(
            [solver, len(mine), trials, value, f"{top['lambda']:.4g}", shown(top["runtime"])]
        )
    return rows


def summary_table(records: Sequence[Mapping[str, Any]], unit: str) -> str:
    """:func:`summary_rows` as text."""
    headers = ["solver", "studies", "trials", "best Eq. 19", "best λ", f"its runtime ({unit})"]
    return tabulate(summary_rows(records), headers, tablefmt="github", disable_numparse=True)


def plot_tuning(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes :func:`tuning_figure` as PNG; none before a study has a figure to show."""
    figure = tuning_figure(records)
    if figure.axes:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=100)


def tuning_figure(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Fig. 9: best value against epochs spent, and the grid of epochs × λ.

    A panel that would be empty is left out: the first without solvers other than the grid, the
    second without the grid.

    Args:
        records: from :func:`study_record`.
    """
    curves, cells = _curves(records), _grid_cells(records)
    panels = bool(curves) + bool(cells)
    figure = Figure(figsize=(5 * max(panels, 1), 4), layout="constrained")
    if curves:
        _plot_curves(figure.add_subplot(1, panels, 1), curves)
    if cells:
        axes = figure.add_subplot(1, panels, panels)
        figure.colorbar(_plot_grid(axes, cells), ax=axes, label="objective (Eq. 19)")
    return figure


def _curves(records: Sequence[Mapping[str, Any]]) -> dict[str, list[list[tuple[float, float]]]]:
    """The progress of every study that has any, by solver; a grid has its own panel."""
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for record in records:
        if record["solver"] != "grid" and (curve := progress_curve(record)):
            found.setdefault(record["solver"], []).append(curve)
    return found


def _grid_cells(records: Sequence[Mapping[str, Any]]) -> dict[tuple[float, float], list[float]]:
    """The values of a grid's trials by λ and epochs."""
    cells: dict[tuple[float, float], list[float]] = {}
    for record in records:
        for trial in record["trials"] if record["solver"] == "grid" else ():
            if trial["value"] is not None:
                cells.setdefault((trial["lambda"], trial["epochs"]), []).append(trial["value"])
    return cells


def _plot_curves(axes: Axes, by_solver: Mapping[str, Sequence[Any]]) -> None:
    """Mean and spread; every line is thinner than those below it, so that none hides another."""
    for index, (solver, curves) in enumerate(by_solver.items()):
        start = max(curve[0][0] for curve in curves)
        epochs = np.linspace(start, max(curve[-1][0] for curve in curves), 100)
        values = np.array([_stepped(curve, epochs) for curve in curves])
        mean, spread = values.mean(0), values.std(0)
        (line,) = axes.plot(
            epochs,
            mean,
            label=f"{solver} ({len(curves)})",
            linestyle=_LINES[index % len(_LINES)],
            linewidth=1.2 + 0.9 * (len(by_solver) - 1 - index),
        )
        axes.fill_between(epochs, mean - spread, mean + spread, color=line.get_color(), alpha=0.2)
    axes.set(xlabel="epochs spent", ylabel="best objective so far (Eq. 19)")
    axes.legend()


def _plot_grid(axes: Axes, cells: Mapping[tuple[float, float], Sequence[float]]) -> PathCollection:
    """One square a cell; returns what a colour bar is of."""
    weights, lengths = zip(*cells, strict=True)
    means = [statistics.fmean(values) for values in cells.values()]
    axes.set(xscale="log", xlabel="λ", ylabel="epochs of the search")
    return axes.scatter(weights, lengths, c=means, marker="s", s=200)


def _stepped(curve: Sequence[tuple[float, float]], epochs: np.ndarray) -> np.ndarray:
    """A curve's value at every number of epochs: that of the last trial that had ended."""
    ends, values = zip(*curve, strict=True)
    return np.asarray(values)[np.searchsorted(ends, epochs + 1e-9, side="right").clip(1) - 1]


def tuning_section(study: Mapping[str, Any]) -> str:
    """The solvers for λ."""
    return f"{summary_table(study['studies'], study['unit'])}\n\n{beside(study)}"
