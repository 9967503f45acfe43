"""One process and two, one forward pass a step and two, killed and resumed: the same result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones import Architecture
from backbones.weights import read_checkpoint
from detection.engine.metrics import read_metrics
from search.studies.kills.differences import LEFT_OUT, TIMES
from tests.search.conftest import SHORT, overrides
from tests.search.runs.small_runs import (
    RUNS,
    copied_halfway,
    fixed_statistics,
    register,
    run_of,
    write_data,
)

ROOT = Path(__file__).parents[3]
PASSES = ("SOLVER.ACCUMULATE", "2")
RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""Of single precision, over four steps in which the optimizer divides by small numbers."""


@pytest.fixture(scope="module")
def base(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All runs: alone in one process; in two, one of which dies; and half here, half there."""
    base = tmp_path_factory.mktemp("same")
    write_data(base)
    register(base)
    torch.set_num_threads(1)
    with fixed_statistics():
        for name in RUNS:
            alone = base / "alone" / name
            with copied_halfway(alone, base / "one, then two" / name):
                run_of(name, images, base, alone, False)
        command = [sys.executable, "-W", "ignore", "-m", "tests.search.runs.elastic_runs"]
        done = subprocess.run(
            [*command, str(images), str(base)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        failure = base / "failure"
        assert not failure.exists(), failure.read_text()
        assert done.returncode == 0, done.stderr[-3000:]
        for name in RUNS:
            run_of(name, images, base, base / "half of two" / name, True)
            if name != "random":  # which refuses another recipe
                run_of(name, images, base, base / "two passes" / name, False, *PASSES)
        yield base


KINDS = ("two", "one, then two", "half of two", "two passes")
PROCESSES = {"alone": 1, "two": 2, "one, then two": 1, "half of two": 2, "two passes": 1}
"""That wrote the checkpoint in the middle of a run; its second half is made by what is last."""

_OTHERWISE = frozenset({*TIMES, "random_states", "scalars"})
"""What a checkpoint also holds: times, and what is each process's own."""

_LOGGED = ("total_loss", "loss_", "search/", "decisions/", "train/", "val/", "lr")
"""Detectron2 also logs counts of one forward pass."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RUNS)
def test_the_result_is_that_of_one_process(base: Path, kind: str, name: str) -> None:
    if (kind, name) == ("two passes", "random"):
        return
    alone, other = base / "alone" / name, base / kind / name
    assert _files(other) == _files(alone)
    for file in alone.glob("architecture.json"):
        assert Architecture.load(other / file.name).layers == Architecture.load(file).layers
    for file in alone.rglob("*.pth"):
        _assert_close(read_checkpoint(other / file.relative_to(alone)), read_checkpoint(file))
    for results in alone.rglob("results.json"):
        theirs = other / results.relative_to(alone)
        _assert_close(json.loads(theirs.read_text()), json.loads(results.read_text()))
    for metrics in alone.rglob("metrics.json"):
        expected = _losses(metrics.parent)
        found = _losses(other / metrics.parent.relative_to(alone))
        # a run that fails writes what it has
        _assert_close({iteration: found[iteration] for iteration in expected}, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_process_died_and_runs_were_resumed(base: Path, name: str) -> None:
    assert (base / "died" / name).exists()
    for kind, count in PROCESSES.items():
        if (kind, name) == ("two passes", "random"):
            continue
        (middle,) = (base / kind / name).rglob("model_0000001.pth")
        assert len(read_checkpoint(middle)["trainer"]["random_states"]) == count


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_step_is_more_than_rounding(base: Path, name: str) -> None:
    """Or equal results would say nothing."""
    (middle,) = (base / "alone" / name).rglob("model_0000001.pth")
    before, after = (
        read_checkpoint(file)["model"] for file in (middle, middle.with_name("model_final.pth"))
    )
    moved = [key for key in before if not _is_close(before[key], after[key])]
    assert len(moved) > len(before) / 10  # statistics, more than half of all, stay


@pytest.mark.slow
def test_torchrun_goes_on_with_a_run_of_a_tool(images: Path, tmp_path: Path) -> None:
    """Started by itself, as a user does, and one of its processes killed."""
    run, mark = tmp_path / "run", tmp_path / "died"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ROOT / "tests" / "search" / "runs" / "run_and_die.py"
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", *torchrun, "--max-restarts", "1", str(program)),
            *(str(mark), "tools/search_net.py", "--num-gpus", "0"),
            *("--config-file", "configs/search/digits_small.yaml"),
            *overrides(images, run),
            *SHORT,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert mark.exists()
    assert "Resuming at iteration 2 of 4" in (run / "log.txt").read_text()
    assert {"results.json", "architecture.json", "backbone.pth", "model_final.pth"} <= _files(run)
    assert "exitcode: -9" in done.stderr and "Traceback" not in done.stderr
    # the other one says what has happened, or that the launcher has ended it
    said = ("error: process 0 of 2 has lost another one", "stopped by SIGTERM")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(said)]
    assert "--resume" in line


def _files(folder: Path) -> set[str]:
    """Without those that tell the course of a run."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        str(name)
        for name in names
        if not any(fnmatch(part, pattern) for part in name.parts for pattern in LEFT_OUT)
    }


def _losses(folder: Path) -> dict[int, dict[str, float]]:
    """The last row of every iteration, without what is timed or counted."""
    return {
        row["iteration"]: {key: value for key, value in row.items() if key.startswith(_LOGGED)}
        for row in read_metrics(folder)
    }


def _is_close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, RELATIVE, ABSOLUTE)


def _assert_close(one: Any, other: Any, place: str = "") -> None:
    """Insists on structures whose numbers are equal to rounding, and all else equal."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one.keys() - _OTHERWISE:
            _assert_close(one[key], other[key], f"{place} {key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            _assert_close(*pair, f"{place} {index}")
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(
            one, other, rtol=RELATIVE, atol=ABSOLUTE, msg=lambda text: f"{place}: {text}"
        )
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=RELATIVE, abs=ABSOLUTE, nan_ok=True), place
    else:
        assert one == other, place
