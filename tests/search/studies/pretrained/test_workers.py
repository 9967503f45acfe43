"""The study with several workers: supernets first, then trials that read them from folders."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones import UserError
from backbones.exported import save_backbone
from search.runs.judge import ClassifierJudge
from search.space import Candidate, SearchSpace
from search.studies.pretrained import study as study_module
from search.studies.pretrained.choosing import ROWS
from search.studies.pretrained.study import run_study
from search.studies.workers import Workers
from tests.search.conftest import SHORT, make_cfg
from tests.search.start.conftest import random_network

TRIALS = [
    *(("sensitivity", part, 0) for part in (0.9, 0.7)),
    *(("blind", part, 0) for part in (0.9, 0.7)),
    *(("start", 1.0, 0), ("sigmoid", 0.7, 1), ("random", 0.7, 1), ("narrowed", 0.7, 0)),
]

Study = Callable[[Path, int], dict[str, Any]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network of the small space."""
    folder = tmp_path_factory.mktemp("start")
    architecture = SearchSpace.load("digits_small").architecture([Candidate(1, 1, 0)] * 3, "own")
    save_backbone(folder, architecture, random_network(architecture, 2).state_dict())
    return folder


@pytest.fixture
def study(start: Path, images: Path) -> Study:
    """Runs the study in a folder with so many workers."""
    counts = ("SEARCH.SENSITIVITY.IMAGES", "6", "SEARCH.SENSITIVITY.CALIBRATION_BATCHES", "2")
    own = ("SEARCH.START", str(start), "SEARCH.FORMULATION", "sensitivity")
    search = (*own, *counts, "SEARCH.HELD_OUT", "0.5", "SEARCH.TOLERANCE", "0.1", *SHORT)

    def run(folder: Path, workers: int) -> dict[str, Any]:
        configs = (
            make_cfg("search/digits_small.yaml", images, folder, *search),
            make_cfg("classification/digits_small.yaml", images, folder, *SHORT),
        )
        output = folder / "study.json"
        return run_study(*configs, ROWS, TRIALS, folder, output, {"unit": "ms"}, Workers(workers))

    return run


@pytest.fixture
def pickled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls go to this process as they would to others: as pickles. Which, in order."""
    called = []

    def in_turns(
        function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], workers: int
    ) -> Iterator[tuple[int, Any]]:
        for index, call in enumerate(arguments):
            own, given = pickle.loads(pickle.dumps((function, call)))
            called.append(given[0].name)
            yield index, pickle.loads(pickle.dumps(own(*given)))

    monkeypatch.setattr("search.studies.workers.in_processes", in_turns)
    return called


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for place in ("sensitivity0", "sigmoid1")
        for path in (folder / place).rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_many_workers_find_what_one_process_finds(
    study: Study, tmp_path: Path, pickled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = study(tmp_path / "one", 1)
    assert not pickled
    after_adapting: list[dict[str, bytes]] = []
    judged: list[str] = []
    run_trials, blind_loss = study_module.run_trials, ClassifierJudge.blind_loss

    def watched(*args: Any) -> dict[str, Any]:
        after_adapting.append(files(tmp_path / "two"))
        judged.append("trials")
        return run_trials(*args)

    def counted(judge: ClassifierJudge, choices: Any) -> float:
        judged.append("blind")
        return blind_loss(judge, choices)

    monkeypatch.setattr(study_module, "run_trials", watched)
    monkeypatch.setattr(ClassifierJudge, "blind_loss", counted)
    two = study(tmp_path / "two", 2)
    assert two["trials"] == one["trials"]
    trials = [f"row {row}, part {part}, seed {seed}" for row, part, seed in TRIALS]
    assert pickled == ["supernet sensitivity, seed 0", "supernet sigmoid, seed 1", *trials]
    narrow = one["trials"][-1]
    assert narrow["row"] == "narrowed" and 0.5 < float(narrow["layers"].removeprefix("width ")) < 1
    assert narrow["runtime"] == pytest.approx(0.7 * one["start_runtime"], rel=0.25)  # widths of 8
    parts = {"start": 1.0, "narrowed": 0.7}
    weights = {
        name: torch.load(tmp_path / "one" / name / f"{part:g}" / "0" / "backbone.pth")["model"]
        for name, part in parts.items()
    }
    shapes = [{k: v.shape for k, v in state.items()} for state in weights.values()]
    assert shapes[0].keys() == shapes[1].keys()
    assert shapes[0]["classifier.weight"] == shapes[1]["classifier.weight"]
    assert shapes[0] != shapes[1]
    # the trials leave the supernets as they were, and measure nothing twice that they share
    assert files(tmp_path / "two") == after_adapting[0]
    assert judged[-1] == "trials" and "blind" in judged
    # nothing is adapted for trials that are there
    pickled.clear()
    assert study(tmp_path / "two", 2)["trials"] == one["trials"]
    assert not pickled
    (tmp_path / "two" / "study.json").write_text(
        (tmp_path / "two" / "study.json").read_text().replace('"row": "sigmoid"', '"row": "gone"')
    )
    assert study(tmp_path / "two", 2)["trials"][-1] == one["trials"][5]
    assert pickled == ["supernet sigmoid, seed 1", "row sigmoid, part 0.7, seed 1"]


def test_a_supernet_that_is_not_adapted(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: list[str]
) -> None:
    """Somebody has taken it away, or its run was cut short."""
    monkeypatch.setattr(study_module, "adapt", lambda *_: None)
    with pytest.raises(UserError, match=r"'.*sensitivity0' is at iteration 0 of \d+; start the"):
        study(tmp_path, 2)
