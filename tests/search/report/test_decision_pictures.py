"""The decisions of a search in the event storage, from which W&B and TensorBoard have them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage

from search.report.decision_pictures import DecisionPictures
from search.report.decisions import histories
from search.report.runs import read_run
from search.runs.detector import DetectorSearchTrainer
from tests.search.report.run_files import write_search


def ended(folder: Path, iteration: int = 60) -> dict[str, tuple[int, ...]]:
    """The shapes of the pictures that a search of 60 iterations leaves."""
    hook = DecisionPictures()
    hook.trainer = SimpleNamespace(iter=iteration, max_iter=60, folder=folder)
    with EventStorage(iteration) as storage:
        hook.after_train()
        return {name: image.shape for name, image, _ in storage._vis_data}


def test_one_picture_for_every_kind_of_decision(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "search")
    kernel, keep = (history.picture() for history in histories(read_run(folder)))
    found = ended(folder)
    assert found == {
        "decisions_over_time/kernel": (3, *kernel.shape[:2]),
        "decisions_over_time/keep": (3, *keep.shape[:2]),
    }
    assert ended(folder, 59) == {}  # interrupted


def test_what_goes_wrong_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_search(tmp_path / "search")
    (folder / "results.json").write_text("{")
    assert ended(folder) == {}
    assert "The decisions over time could not be drawn: the results file" in caplog.text


def test_a_search_on_a_detector_leaves_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detection.trainer.DetectionTrainer.build_hooks", lambda _: [])
    hooks = DetectorSearchTrainer.build_hooks(object.__new__(DetectorSearchTrainer))
    assert isinstance(hooks[-1], DecisionPictures)
