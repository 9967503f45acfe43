"""Every part has a table, with what failed below it."""

from __future__ import annotations

from typing import Any

import pytest

from search.studies.benchmarks.gpu.report import PARTS
from search.studies.benchmarks.gpu.tables import TABLES, gpu_section

COST = {"seconds": 0.0875, "first_seconds": 9.0, "peak_bytes": 3 * 2**30, "time_ratio": 1.25}
STEPS = {
    "float32": {
        **{"batch": 128, "size": 224, "measured_in": 7.0},
        "steps": {"supernet": {**COST, "memory_ratio": 1.5}, "multi_path": {"error": "no room"}},
    },
    "bfloat16": {"error": "UserError: not here", "measured_in": 0.1},
}
FIGURES: dict[str, dict[str, Any]] = {
    "a": {
        "checks": {
            "classifier": {
                **{"steps": [10, 30], "losses": [2.4, 1.1], "seconds": [12.2, 14.9]},
                "peak_bytes": None,
            },
            "Mask R-CNN": {"error": "exit code 1: no room"},
            "measured_in": 30.0,
        }
    },
    "b": STEPS,
    "c": STEPS,
    "d": STEPS,
    "e": {
        "table": {
            "scores": {
                "all": {"networks": 50, "mean_error": 2.5, "rmse": 0.125, "spearman": 0.75},
                "plain sum": {"mean_error": 9.5},
            }
        },
        "search": {"target": 4.0, "predicted": 3.99, "measured": 4.125},
    },
    "f": {
        "data": {"seconds": 3.0},
        "ImageNet search": {
            **{"batch": 128, "seconds": 0.25, "median_seconds": 0.2, "data_seconds": 0.15},
            **{"peak_bytes": 2**31, "hours": 0.7, "hours_without_waiting": 0.14},
        },
    },
}
ROWS = {
    "a": ["| classifier | 10 of 30 | 2.40 → 1.10 | 12 s + 15 s |"],
    "b": ["| float32 | single-path supernet | 87.5 ms | 3.00 GiB | 1.25 | 1.50 |"],
    "e": ["| 50 | 2.50 % | 9.50 % | 0.125 ms | 0.750 |", "| 4.000 ms | 3.990 ms | 4.125 ms |"],
    "f": ["| ImageNet search | 128 | 250 ms | 150 ms | 2.00 GiB | 0.7 | 0.1 |"],
}
FAILURES = {
    "a": ["- title: checks, Mask R-CNN: exit code 1: no room"],
    "b": ["- title: float32, steps, multi_path: no room", "- title: bfloat16: UserError: not here"],
}


def section(name: str, error: str | None = None) -> list[str]:
    part = {"title": "title", "command": "python x", "hardware": "a GPU", "error": error}
    text = gpu_section({"parts": {name: {**part, "figures": FIGURES[name]}}})
    return [" ".join(line.split()) for line in text.splitlines()]


def test_every_part_has_a_table() -> None:
    assert TABLES.keys() == PARTS.keys() == FIGURES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_what_was_measured_is_in_it(name: str) -> None:
    lines = section(name)
    assert lines[0].startswith("| ") and lines[1].startswith("|--")
    assert [row for row in ROWS.get(name, []) if row not in lines] == []
    failed = [line for line in lines if line.startswith("- ")]
    assert failed == FAILURES.get("b" if FIGURES[name] is STEPS else name, [])
    assert lines[-1] == "`python x`; a GPU."


def test_a_part_that_was_stopped_says_so() -> None:
    assert "- title: stopped after 80 s, its time limit" in section(
        "e", "stopped after 80 s, its time limit"
    )
