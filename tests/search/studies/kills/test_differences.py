"""Every kind of difference between two run folders is found, and times are none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from search.studies.kills.differences import differences, first_difference


def row(iteration: int, loss: float, time: float) -> str:
    return json.dumps({"iteration": iteration, "total_loss": loss, "time": time}) + "\n"


def write_run(folder: Path) -> Path:
    """A run folder in small; its files name it."""
    folder.mkdir()
    state = {"model": {"w": torch.tensor([1.0, float("nan")])}, "trainer": {"iteration": 3}}
    torch.save(state, folder / "model_final.pth")
    (folder / "metrics.json").write_text(row(0, 0.5, 1.0) + row(1, float("nan"), 1.0))
    (folder / "config.yaml").write_text(f"OUTPUT_DIR: {folder}\n")
    results = {"cost": {"params": 3, "detector_runtime": 7.5}, "file": f"{folder}/backbone.pth"}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "comparison.csv").write_text(
        "name,cost.runtime (ms),cost.detector_runtime (ms)\na,1,2"
    )
    (folder / "log.txt").write_text("began")
    layers = [{"runtimes": {"3x3-1": 0.25}, "spreads": {"3x3-1": 0.1}}]
    table = {"engine": "torch", "layers": layers, "constant": {"runtime": 1.0}}
    (folder / "table.json").write_text(json.dumps(table))
    trials = [{"number": 0, "state": "complete", "lambda": 0.5, "value": 70.0}]
    (folder / "tuning.json").write_text(json.dumps({"studies": [{"trials": trials}]}))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "whole"), write_run(tmp_path / "parts")


def changed(name: str, old: str, new: str) -> Callable[[Path], Any]:
    def change(run: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new))

    return change


def append(name: str, text: str) -> Callable[[Path], Any]:
    return lambda run: (run / name).write_text((run / name).read_text() + text)


def trained(key: str, value: Any) -> Callable[[Path], Any]:
    def change(run: Path) -> None:
        state = torch.load(run / "model_final.pth", weights_only=True)
        state[key] = value
        torch.save(state, run / "model_final.pth")

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run,
        changed("metrics.json", '"time": 1.0', '"time": 2.0'),
        append("metrics.json", row(1, float("nan"), 3.0)),
        changed("results.json", "7.5", "8.5"),
        changed("comparison.csv", ",2", ",3"),
        changed("log.txt", "began", "began again"),
        lambda run: (run / "events.out.tfevents.2").touch(),
        changed("table.json", "0.25", "0.35"),
        changed("tuning.json", '"number": 0', '"number": 1'),
        changed("tuning.json", '"trials": [', '"trials": [{"number": 9, "state": "fail"}, '),
        trained("model", {"w": torch.tensor([1.0, float("nan")])}),
    ],
)
def test_what_counts_as_equal(runs: tuple[Path, Path], change: Callable[[Path], Any]) -> None:
    change(runs[1])
    assert differences(*runs) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda run: (run / "config.yaml").unlink(), "config.yaml: missing"),
        (lambda run: (run / ".results.json.a.tmp").touch(), ".results.json.a.tmp: not expected"),
        (changed("config.yaml", "OUTPUT", "OUT"), "config.yaml: other bytes"),
        (changed("metrics.json", "0.5", "0.6"), "metrics.json: 0 0 total_loss 0.5 and 0.6"),
        (append("metrics.json", row(1, 0.25, 1.0)), "metrics.json: 1 1 object and dict"),
        (changed("results.json", "3", "4"), "results.json: cost params 3 and 4"),
        (lambda run: (run / "results.json").write_text("{"), "results.json: cannot be read"),
        (changed("comparison.csv", "a,1", "a,5"), "comparison.csv: 0 cost.runtime (ms) '1' and"),
        (changed("table.json", "3x3", "5x5"), "table.json: layers 0 runtimes 0 '3x3-1' and"),
        (changed("tuning.json", "70.0", "71.0"), "tuning.json: studies 0 trials 0 value 70.0"),
        (trained("trainer", {"iteration": 4}), "model_final.pth: trainer iteration 3 and 4"),
        (trained("model", {"w": torch.tensor([1.0, 2.0])}), "model_final.pth: model w another"),
        (trained("more", 1), "model_final.pth: only one has more"),
    ],
)
def test_what_differs(
    runs: tuple[Path, Path], change: Callable[[Path], Any], expected: str
) -> None:
    change(runs[1])
    (found,) = differences(*runs)
    assert found.startswith(expected)


def test_a_copy_names_the_folder_it_is_of(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole")
    shutil.copytree(whole, tmp_path / "copy")
    assert differences(whole, tmp_path / "copy") == []


def test_tensors_differ_by_their_bits() -> None:
    zero = torch.tensor([0.0])
    assert first_difference(zero, -zero) == "another tensor"
    assert first_difference(zero, zero.double()) == "another tensor"
    assert first_difference({"a": (1, True)}, {"a": (1, True)}) is None
    assert first_difference([True], [1]) == "0 bool and int"
