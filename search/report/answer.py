"""The answer first: which network, how good, how fast, and against what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backbones.figures import shown
from detection.report import TASK_NAMES
from search.report.runs import Run


@dataclass(frozen=True)
class Tile:
    """One figure: what it is, its value, and what it is to be compared with."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """Title and figures of a report.

    Attributes:
        title: the network, or what is not finished yet.
        sentence: what it is, in words.
        tiles: its figures.
    """

    title: str
    sentence: str
    tiles: tuple[Tile, ...]


def answer(runs: Sequence[Run], main: Run | None, baseline: Run | None) -> Answer:
    """What the runs came to.

    Args:
        runs: all of them.
        main: the detector that the report is about; None without one that has scores.
        baseline: what it is compared with.
    """
    searches = [run for run in runs if run.part("search")]
    search = searches[0].part("search") if searches else {}
    trained = next((r.part("classification") for r in runs if r.part("classification")), {})
    detected = main.part("detection") if main else {}
    tiles = [*_detection(detected, baseline), *_accuracy(trained, search)]
    tiles += _runtimes(detected, trained, search)
    name = detected.get("cost", {}).get("backbone") or trained.get("architecture")
    name = name or search.get("architecture")
    unfinished = [run for run in runs if not run.finished]
    if name is None:
        title = "Not finished yet" if unfinished else "Studies"
        return Answer(title, _state(unfinished), ())
    layers = search.get("layers", ())
    words = []
    if layers:
        words.append(f"{len(layers)} searched layers, {layers.count('skip')} of them skipped.")
    if baseline:
        other = baseline.part("detection")["cost"]["backbone"]
        words.append(f"Differences are to {other}, {baseline.name}.")
    return Answer(str(name), " ".join([*words, _state(unfinished)]).strip(), tuple(tiles))


def _state(unfinished: Sequence[Run]) -> str:
    return " ".join(f"Unfinished: {run.title} {run.name}, {progress(run)}." for run in unfinished)


def progress(run: Run) -> str:
    """How far an unfinished run has come, by its last row of metrics."""
    last = max((row for row in run.metrics if "iteration" in row),
               key=lambda row: row["iteration"], default=None)  # fmt: skip
    if last is None:
        return "nothing logged yet"
    left = run.series("eta_seconds")
    rest = f", {left[-1][1] / 60:.0f} minutes left by its last line" if left and left[-1][1] else ""
    return f"{last['iteration'] + 1} iterations done{rest}"


def _detection(found: dict[str, Any], baseline: Run | None) -> list[Tile]:
    tiles = []
    for dataset, scores in list(found.get("scores", {}).items())[:1]:
        theirs = baseline.part("detection").get("scores", {}).get(dataset, {}) if baseline else {}
        for task, figures in scores.items():
            scales = [(s, figures.get(f"AP{s[0]}")) for s in ("small", "medium", "large")]
            parts = [f"{name} {value:.1f}" for name, value in scales if value is not None]
            other, own = theirs.get(task, {}).get("AP"), figures.get("AP")
            if other is not None and own is not None:
                parts.insert(0, f"{own - other:+.1f} to the baseline")
            value = "–" if own is None else f"{own:.1f}"
            tiles.append(Tile(f"{TASK_NAMES.get(task, task)} AP", value, ", ".join(parts)))
    return tiles


def _accuracy(trained: dict[str, Any], search: dict[str, Any]) -> list[Tile]:
    if trained.get("val"):
        return [Tile("top-1", f"{trained['val']['top1']:.1f} %", "of the classifier, held out")]
    if search.get("val"):
        note = "held out, with the supernet's weights"
        return [Tile("top-1", f"{search['val']['top1']:.1f} %", note)]
    return []


def _runtimes(
    detected: dict[str, Any], trained: dict[str, Any], search: dict[str, Any]
) -> list[Tile]:
    """Predicted, measured, and of the whole detector; each with what it is of."""
    tiles, cost = [], detected.get("cost", {})
    if search.get("latency_table"):  # an evaluation of a search has none
        unit, target = search["unit"], search.get("target_runtime")
        note = f"by table {search['latency_table']}"
        if target:
            off = 100 * (search["predicted_runtime"] / target - 1)
            note += f"; target {target:g} {unit} ({off:+.1f} %)"
        tiles.append(Tile("predicted", f"{shown(search['predicted_runtime'])} {unit}", note))
    elif (source := cost if cost.get("runtime") is not None else trained) and (
        runtime := source.get("runtime", source.get("predicted_runtime"))
    ) is not None:
        unit = source.get("runtime_unit", source.get("unit", "ms"))
        note = f"by table {source['latency_table']}, {source.get('runtime_of')}"
        tiles.append(Tile("predicted", f"{shown(runtime)} {unit}", note))
    for source in (cost, search):
        if source.get("measured_runtime") is not None:
            value = f"{shown(source['measured_runtime'])} ms"
            tiles.append(Tile("measured", value, str(source.get("measured_with"))))
            break
    if cost.get("detector_runtime") is not None:
        value = f"{shown(cost['detector_runtime'])} ms"
        tiles.append(
            Tile("whole detector", value, "{1}×{0} pixels, PyTorch".format(*cost["input_size"]))
        )
    return tiles
