from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.engine.results import write_results


def test_numbers_become_json(tmp_path: Path) -> None:
    results = {
        "bbox": {"AP": float("nan"), "APs": np.float32(1.5), "n": np.int64(3)},
        "loss": torch.tensor(0.25),
        "curve": torch.tensor([1.0, float("inf")]),
        "array": np.array([1, 2]),
        "path": Path("a/b"),
        1: (True, None),
    }
    path = write_results(tmp_path, results)
    assert path == tmp_path / "results.json"
    assert json.loads(path.read_text()) == {
        "bbox": {"AP": None, "APs": 1.5, "n": 3},
        "loss": 0.25,
        "curve": [1.0, None],
        "array": [1, 2],
        "path": "a/b",
        "1": [True, None],
    }


def test_adds_to_what_is_there(tmp_path: Path) -> None:
    write_results(tmp_path, {"a": {"x": 1}, "b": 2})
    path = write_results(tmp_path, {"a": {"y": 3}})
    assert json.loads(path.read_text()) == {"a": {"y": 3}, "b": 2}


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = write_results(tmp_path, {"a": 1})
    with pytest.raises(TypeError, match="results hold a object; expected numbers"):
        write_results(tmp_path, {"b": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["results.json"]


def test_a_broken_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"a": ')
    path = write_results(tmp_path, {"b": 1})
    assert json.loads(path.read_text()) == {"b": 1}
    assert (tmp_path / "results.json.broken").read_text() == '{"a": '
