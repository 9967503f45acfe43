"""What a run leaves, to compare two runs, or one before and after something."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

TIMES = {
    "time",
    "data_time",
    "rank_data_time",
    "eta_seconds",
    "detector_runtime",
    "measured_runtime",
}


def contents(folder: Path, *without: str) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes, but for some folders or files."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in without
    }


def assert_same_runs(whole: Path, parts: Path) -> None:
    """Insists that two run folders hold the same, but for times and the course of logging.

    Checkpoints are compared by their tensors, rows of metrics and results without times.
    """
    files = [_compared(folder) for folder in (whole, parts)]
    assert files[0] == files[1]
    for name in files[0]:
        if name.endswith(".pth"):
            states = [torch.load(folder / name, weights_only=True) for folder in (whole, parts)]
            assert_equal(*(state["model"] for state in states), name)
            assert_equal(*(state.get("trainer") for state in states), name)
        elif name.endswith("metrics.json"):
            assert _rows(whole / name) == _rows(parts / name), name
        elif name.endswith("results.json"):
            found = [json.loads((folder / name).read_text()) for folder in (whole, parts)]
            assert _timeless(found[0]) == _timeless(found[1]), name
        elif name.endswith("config.yaml"):
            # a folder that was copied names the one that it is from
            one, other = (
                (folder / name).read_text().replace(str(whole), "RUN").replace(str(parts), "RUN")
                for folder in (whole, parts)
            )
            assert one == other, name
        else:
            assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def assert_equal(one: Any, other: Any, place: str) -> None:
    """Insists on the same keys, and on tensors that are equal bit for bit."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_equal(one[key], other[key], f"{place} {key}")
    elif isinstance(one, list):
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second, place)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


def _compared(folder: Path) -> list[str]:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return [name for name in names if "events.out" not in name and "log.txt" not in name]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    return str(value)  # of NaN, too
