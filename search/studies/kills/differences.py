"""In what two run folders differ, but for times and the course of logging."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from fnmatch import fnmatch
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from detection.engine.metrics import read_metrics

TIMES = frozenset(
    {
        *("time", "data_time", "rank_data_time", "eta_seconds"),
        *("detector_runtime", "measured_runtime", "measured_error", "train_images"),
    }
)
"""Keys of what is measured by a clock, in metrics, results and comparisons."""

MEASURED = frozenset(
    {
        *("runtime", "spread", "noise", "warning"),
        *("correction", "correction_refused", "source", "date"),
    }
)
"""Keys of a profiled latency table that are measurements, or a verdict on them."""

ATTEMPT = frozenset({"number"})
"""Keys of a tuning trial that count the attempts at it."""

LEFT_OUT = (
    *("log.txt", "*.log", "events.out.tfevents*", ".lock", "evaluation", "wandb"),
    *("comparison.md", "tune.db", "tuning.png", "visits.jsonl", "report.html"),
)
"""Names of files that tell the course of a run, or show times or that course among other figures.

Of ``comparison.md`` the figures are in ``comparison.json``, of ``tune.db`` in the study's JSON, and
``tuning.png`` is drawn from it in the order in which its trials ended.
"""


def differences(whole: Path, parts: Path) -> list[str]:
    """What differs between a run folder and another, one entry a file; none where they are equal.

    Checkpoints are compared tensor by tensor and bit by bit with all else that they hold, metrics
    by the different rows of every iteration, other JSON and CSV by their values; all of it without
    times. All other files, text and pictures, are compared byte for byte.

    Args:
        whole: one folder.
        parts: the other; where files name either of them, they name the same.
    """
    files = [set(_files(folder)) for folder in (whole, parts)]
    found = [f"{name}: missing" for name in sorted(files[0] - files[1])]
    found += [f"{name}: not expected" for name in sorted(files[1] - files[0])]
    for name in sorted(files[0] & files[1]):
        place = _difference(whole, parts, name)
        if place is not None:
            found.append(f"{name}: {place}")
    return found


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder) for path in paths)
    return [
        str(name)
        for name in names
        if not any(fnmatch(part, pattern) for part in name.parts for pattern in LEFT_OUT)
    ]


def _difference(whole: Path, parts: Path, name: str) -> str | None:
    """Where a file of both folders differs; None where it does not."""
    suffix = Path(name).suffix
    if Path(name).name == "metrics.json":
        read: Callable[[Path], Any] = _metrics
    elif suffix in (".pth", ".json", ".csv"):
        read = {".pth": _checkpoint, ".json": _json, ".csv": _csv}[suffix]
    else:
        read = Path.read_bytes
    values = []
    for folder in (whole, parts):
        try:
            values.append(read(folder / name))
        except ValueError as error:  # no JSON
            return f"cannot be read: {error}"
    one, other = values
    if isinstance(one, bytes):
        for path in (str(whole).encode(), str(parts).encode()):
            one, other = one.replace(path, b"RUN"), other.replace(path, b"RUN")
        return None if one == other else "other bytes"
    return first_difference(one, other, (str(whole), str(parts)))


def first_difference(
    one: Any, other: Any, folders: tuple[str, str] = ("", ""), place: str = ""
) -> str | None:
    """Where two structures of containers, tensors and plain values differ first; None for nowhere.

    Args:
        one: a structure.
        other: another.
        folders: what stands in texts for the same thing.
        place: of both, as keys.
    """
    if type(one) is not type(other):
        return f"{place} {type(one).__name__} and {type(other).__name__}".strip()
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(one, dict):
        if one.keys() != other.keys():
            odd = sorted(map(str, one.keys() ^ other.keys()))
            return f"{place} only one has {', '.join(odd[:3])}".strip()
        pairs = [(str(key), one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple):
        missing = object()
        pairs = [(str(i), *p) for i, p in enumerate(zip_longest(one, other, fillvalue=missing))]
    elif isinstance(one, torch.Tensor):
        # of bits, so that NaN is itself
        same = one.dtype == other.dtype and one.shape == other.shape and _bits(one) == _bits(other)
        return None if same else f"{place} another tensor".strip()
    elif isinstance(one, str):
        for folder in filter(None, folders):
            one, other = one.replace(folder, "RUN"), other.replace(folder, "RUN")
    if not pairs:
        return None if repr(one) == repr(other) else f"{place} {one!r} and {other!r}".strip()
    inside = (first_difference(a, b, folders, f"{place} {key}") for key, a, b in pairs)
    return next((found for found in inside if found is not None), None)


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def timeless(value: Any, keys: frozenset[str] = TIMES) -> Any:
    """The same without the values of some keys, at any depth."""
    if isinstance(value, dict):
        return {key: timeless(item, keys) for key, item in value.items() if key not in keys}
    if isinstance(value, list):
        return [timeless(item, keys) for item in value]
    return value


def _checkpoint(path: Path) -> Any:
    return timeless(torch.load(path, weights_only=True, map_location="cpu"))


def _metrics(path: Path) -> dict[str, list[Any]]:
    """By iteration, the different rows; steps that were lost are trained, and written, again."""
    found: dict[str, list[Any]] = {}
    for row in read_metrics(path.parent):
        rows = found.setdefault(str(row.get("iteration")), [])
        if repr(row := timeless(row)) not in map(repr, rows):
            rows.append(row)
    return found


def _json(path: Path) -> Any:
    value = timeless(json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(value, dict):
        return value
    if "layers" in value and "engine" in value:
        return timeless({**value, "layers": list(map(_entries, value["layers"]))}, MEASURED)
    if "studies" in value:
        return {**value, "studies": [_finished_trials(study) for study in value["studies"]]}
    return value


def _entries(layer: dict[str, Any]) -> dict[str, Any]:
    """What a layer of a latency table has measurements of, instead of the measurements."""
    return {
        key: sorted(value) if key in ("runtimes", "spreads") else value
        for key, value in layer.items()
    }


def _finished_trials(study: dict[str, Any]) -> dict[str, Any]:
    """Without attempts that came to nothing, whatever the order: what the study rests on."""
    trials = [timeless(trial, ATTEMPT) for trial in study["trials"] if trial["state"] != "fail"]
    return {**study, "trials": sorted(trials, key=repr)}


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {k: v for k, v in row.items() if k.split(".")[-1].split(" (")[0] not in TIMES}
            for row in csv.DictReader(file)
        ]
