"""Plots the evaluation of a latency table as in Fig. 4."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backbones.files import atomic_path
from backbones.layer_types import parse_types
from search.profiling.workload import uses_se


def plot_evaluation(report: Mapping[str, Any], path: Path) -> None:
    """Left: predicted against measured runtime. Right, if the table has SE: its factors by layer.

    Args:
        report: what ``evaluate_table`` returned.
        path: of the PNG.
    """
    panels = 2 if report["se_factors"] else 1
    figure = Figure(figsize=(5 * panels, 4), layout="constrained")
    left = figure.add_subplot(1, panels, 1)
    for label, marker, member in (("with SE", "o", True), ("without SE", "^", False)):
        rows = [row for row in report["networks"] if uses_se(row["layers"]) == member]
        measured = [row["measured"] / report["drift"] for row in rows]
        if rows:
            left.scatter(
                measured, [row["predicted"] for row in rows], s=14, marker=marker, label=label
            )
    predicted = [row["predicted"] for row in report["networks"]]
    ends = [min(predicted), max(predicted)]
    left.plot(ends, ends, color="grey", linewidth=1)
    scores = report["scores"]["all"]
    rank = "undefined" if scores["spearman"] is None else f"{scores['spearman']:.3f}"
    left.set(
        title=f"{scores['networks']} random networks: mean error {scores['mean_error']:.2f} %, "
        f"ρ {rank}",
        xlabel="measured runtime at the table's pace (ms)",
        ylabel="predicted runtime (ms)",
    )
    left.legend()
    if report["se_factors"]:
        _plot_se_factors(figure.add_subplot(1, panels, 2), report)
    height, width = report["input_size"]
    setting = f"{report['threads']} thread(s), {height}×{width}, {report['task']}"
    if (precision := report.get("precision", "float32")) != "float32":
        setting = f"{setting}, {precision}"
    figure.suptitle(f"{report['engine']} on {report['device']}, {setting}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _plot_se_factors(axes: Axes, report: Mapping[str, Any]) -> None:
    for ratio, rows in report["se_factors"].items():
        layers = range(1, len(rows) + 1)
        low, mean, high = zip(*rows, strict=True)
        (line,) = axes.plot(layers, mean, marker=".", label=f"SE {ratio}")
        axes.fill_between(layers, low, high, color=line.get_color(), alpha=0.2)
    axes.axhline(1, color="grey", linewidth=1)
    axes.set(
        title="SE scaling factor: mean and range over types",
        xticks=range(1, len(parse_types(report["networks"][0]["layers"])) + 1, 2),
        xlabel="searchable layer",
        ylabel="runtime with SE over runtime without",
    )
    axes.legend()
