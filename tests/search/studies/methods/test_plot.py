"""The plot of a study shows its trials, their means and their spreads."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from PIL import Image

from search.studies.methods.plot import plot_study, study_figure

VALUES = {
    ("random", 60.0): [(80.0, 59.5), (82.0, 59.9), (87.0, 60.0)],
    ("single-path", 60.0): [(85.0, 59.0)],
    ("single-path", 80.0): [(90.0, 79.0), (91.0, 80.0)],
}
"""(top-1, runtime) of the trials of every method and target."""


@pytest.fixture
def study() -> dict[str, Any]:
    trials = [
        {"method": method, "target": target, "seed": seed, "top1": top1, "runtime": runtime}
        for (method, target), rows in VALUES.items()
        for seed, (top1, runtime) in enumerate(rows)
    ]
    return {"unit": "ms", "trials": trials[::-1]}


def dots_of(axes: Axes) -> list[list[tuple[float, float]]]:
    """(x, y) of the dots of every target."""
    clouds = [c for c in axes.collections if isinstance(c, PathCollection)]
    return [[(float(x), float(y)) for x, y in cloud.get_offsets()] for cloud in clouds]


def bars_of(axes: Axes) -> list[list[tuple[float, float, float]]]:
    """(x, mean, spread) of the bars of every target."""
    rows = []
    for container in axes.containers:
        line, _, (bars,) = container
        rows.append(
            [
                (float(x), float(y), float(segment[1][1] - segment[0][1]) / 2)
                for x, y, segment in zip(*line.get_data(), bars.get_segments(), strict=True)
            ]
        )
    return rows


@pytest.mark.parametrize("panel", [0, 1])
def test_every_trial_mean_and_spread(study: dict[str, Any], panel: int) -> None:
    axes = study_figure(study).axes[panel]
    methods = [label.get_text() for label in axes.get_xticklabels()]
    assert methods == ["single-path", "random"]  # in the order of the file
    assert [c.get_label() for c in axes.containers] == ["60", "80"]
    assert len({cloud.get_facecolor().tobytes() for cloud in axes.collections[::2]}) == 2
    found: dict[tuple[str, float], list[float]] = {}
    for target, dots, bars in zip((60.0, 80.0), dots_of(axes), bars_of(axes), strict=True):
        for x, y in dots:
            found.setdefault((methods[round(x)], target), []).append(y)
        for x, mean, spread in bars:
            values = found[methods[round(x)], target]
            assert mean == pytest.approx(statistics.mean(values))
            assert spread == pytest.approx(statistics.stdev(values) if len(values) > 1 else 0)
        assert len(bars) == sum(key[1] == target for key in VALUES)
    assert {key: sorted(values) for key, values in found.items()} == {
        (method, target): pytest.approx(
            sorted(row[panel] / (target if panel else 1) for row in rows)
        )
        for (method, target), rows in VALUES.items()
    }


def test_networks_of_one_search_are_crosses(study: dict[str, Any]) -> None:
    trial = next(t for t in study["trials"] if (t["method"], t["target"]) == ("single-path", 80.0))
    trial["samples"] = [{"top1": 88.0, "runtime": 84.0}, {"top1": 92.0, "runtime": 76.0}]
    for axes, expected in zip(study_figure(study).axes, ([88, 92], [1.05, 0.95]), strict=True):
        crosses = dots_of(axes)[-1]
        assert [round(x) for x, _ in crosses] == [0, 0]
        assert [y for _, y in crosses] == pytest.approx(expected)


def test_written_as_a_picture(study: dict[str, Any], tmp_path: Path) -> None:
    plot_study(study, tmp_path / "study.png")
    with Image.open(tmp_path / "study.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (1000, 400)
