"""Plots a study of search methods as in Fig. 8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbones.files import atomic_path
from search.studies.trials import Record, mean_and_spread

_WIDTH = 0.8
"""Of the space that the targets of one method share; methods are 1 apart."""


def study_figure(study: Mapping[str, Any]) -> Figure:
    """Left: accuracy by method and target. Right: runtime over the target.

    Every trial is a dot, and every network drawn from its decisions (intra-run) a cross; mean and
    sample standard deviation of the trials stand beside them.

    Args:
        study: what :func:`search.studies.methods.study.run_study` returned.
    """
    trials: list[Record] = study["trials"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, trials, lambda network, target: network["top1"])
    left.set(title="networks found, trained by one recipe", ylabel="held-out top-1 (%)")
    _panel(right, trials, lambda network, target: network["runtime"] / target)
    right.axhline(1, color="grey", linewidth=1)
    right.set(title="predicted runtime", ylabel="runtime over target")
    left.legend(title=f"target ({study['unit']})")
    return figure


def plot_study(study: Mapping[str, Any], path: Path) -> None:
    """Writes :func:`study_figure` as a PNG."""
    with atomic_path(path) as temporary:
        study_figure(study).savefig(temporary, format="png", dpi=100)


def _panel(
    axes: Axes, trials: Sequence[Record], figure_of: Callable[[Record, float], float]
) -> None:
    """One figure of every trial: methods side by side, a colour for every target."""
    methods = list(dict.fromkeys(trial["method"] for trial in trials))
    targets = sorted({trial["target"] for trial in trials})
    step = _WIDTH / len(targets)
    for index, target in enumerate(targets):
        color, dots, bars, crosses = f"C{index}", [], [], []
        for position, method in enumerate(methods):
            found = [t for t in trials if (t["method"], t["target"]) == (method, target)]
            group = [{"value": figure_of(trial, target)} for trial in found]
            if group:
                place = position + (index + 0.5) * step - _WIDTH / 2
                dots += [(place - step / 8, row["value"]) for row in group]
                crosses += [
                    (place - 3 * step / 8, figure_of(sample, target))
                    for trial in found
                    for sample in trial.get("samples", ())
                ]
                bars.append((place + step / 8, *mean_and_spread(group, "value")))
        x, y = zip(*dots, strict=True)
        axes.scatter(x, y, s=14, color=color, alpha=0.5)
        if crosses:
            x, y = zip(*crosses, strict=True)
            axes.scatter(x, y, s=14, color=color, alpha=0.5, marker="x", linewidths=1)
        x, mean, spread = zip(*bars, strict=True)
        axes.errorbar(x, mean, spread, fmt="D", ms=5, capsize=3, color=color, label=f"{target:g}")
    axes.set_xticks(range(len(methods)), methods, rotation=20)
