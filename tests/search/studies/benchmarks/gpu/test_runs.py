"""Runs end by themselves, are asked to leave, or are killed, and what they said is kept."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from search.studies.benchmarks.gpu.runs import losses, losses_are_finite, peak_bytes, run_tool

LEAVES = """
import pathlib, signal, sys, time
def leave(*_):
    print('stopped by SIGTERM after iteration 7 of 30')
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""
STAYS = LEAVES.replace("leave)", "signal.SIG_IGN)")


def run(tmp_path: Path, script: str, limit: float) -> tuple[int | None, bool, str]:
    begun = tmp_path / "begun"
    words = ["-c", script, str(begun)]
    ended = run_tool(words, os.environ, tmp_path / "log", begun.exists, limit)
    return ended.code, ended.asked, ended.last_line


def test_a_run_that_ends_by_itself(tmp_path: Path) -> None:
    script = "import sys; print('first'); print('last'); sys.exit(3)"
    assert run(tmp_path, script, 30) == (3, False, "last")
    assert (tmp_path / "log").read_text() == "first\nlast\n"


def test_a_run_is_asked_to_leave_when_it_is_enough(tmp_path: Path) -> None:
    last = "stopped by SIGTERM after iteration 7 of 30"
    assert run(tmp_path, LEAVES, 30) == (143, True, last)


def test_a_run_that_stays_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.studies.benchmarks.gpu.runs._LAST_WORDS", 0.2)
    start = time.monotonic()
    code, asked, _ = run(tmp_path, STAYS, 30)
    assert (code, asked) == (None, True)
    assert time.monotonic() - start < 25


def test_a_run_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    assert run(tmp_path, "import time; time.sleep(60)", 0.3) == (None, False, "")


@pytest.mark.parametrize(
    ("rows", "finite"),
    [
        ([{"total_loss": 2.5}, {"lr": 1.0}, {"total_loss": 2.0}], True),
        ([{"total_loss": 2.5}, {"total_loss": float("nan")}], False),
        ([], False),
    ],
)
def test_losses_are_those_logged(
    tmp_path: Path, rows: list[dict[str, float]], finite: bool
) -> None:
    (tmp_path / "metrics.json").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert losses_are_finite(tmp_path) == finite
    assert len(losses(tmp_path)) == sum("total_loss" in row for row in rows)


def test_the_peak_is_the_highest_that_was_printed() -> None:
    output = "iter: 19  max_mem: 900M\niter: 39  max_mem: 1250M\niter: 59  max_mem: 1200M\n"
    assert peak_bytes(output) == 1250 * 2**20
    assert peak_bytes("iter: 19\n") is None


def test_python_is_this_one(tmp_path: Path) -> None:
    assert run(tmp_path, "import sys; print(sys.executable)", 30)[2] == sys.executable
