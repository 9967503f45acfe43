"""``results.json``: the final numbers of a run."""

from __future__ import annotations

import logging
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from backbones.errors import UserError
from backbones.files import read_json, write_json

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"


def write_results(output_dir: str | os.PathLike[str], results: Mapping[str, Any]) -> Path:
    """Adds ``results`` to the run's ``results.json``, whole or not at all.

    Keys that the file already has are replaced, all others stay, so that an evaluation after the
    training adds to what the training wrote.

    Args:
        output_dir: the run folder.
        results: nested numbers, strings and containers; NaN and infinity become ``null``, tensors
            and arrays become numbers or lists.

    Returns:
        The file's path.
    """
    path = Path(output_dir) / RESULTS_FILE
    merged = {**_read_existing(path), **to_json(results)}
    write_json(path, merged)
    return path


def results_part(folder: str | os.PathLike[str], part: str) -> Any:
    """A part of a run's ``results.json``; None where the file or the part is missing or broken.

    A file that is cut says nothing of the run: it counts as not there.

    Args:
        folder: of the run.
        part: its key, e.g. ``detection``.
    """
    try:
        results = read_json(Path(folder) / RESULTS_FILE, "results")
    except UserError:
        return None
    return results.get(part) if isinstance(results, dict) else None


def to_json(value: Any) -> Any:
    """Plain JSON data: no tensors, no NumPy types, no NaN.

    Raises:
        TypeError: for an object that has no place in JSON.
    """
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, Tensor):
        return to_json(value.detach().cpu().tolist())
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"results hold a {type(value).__name__}; expected numbers, strings, containers")


def _read_existing(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        existing = read_json(path, "results")
    except UserError as error:
        # Hours of training are not thrown away for a broken file; it is kept for a look.
        kept = path.with_name(f"{path.name}.broken")
        path.replace(kept)
        logging.getLogger(__name__).warning("%s; it is kept as '%s'", error, kept)
        return {}
    return existing if isinstance(existing, dict) else {}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of a figure; the deviation of one value is 0."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
