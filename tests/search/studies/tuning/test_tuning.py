"""Tuning λ on a function with a known optimum: solvers, budgets, shared studies, Fig. 9."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from optuna.trial import TrialState

from backbones import UserError
from search.config import load_search_config
from search.runs.classification import SearchTrainer
from search.studies.tuning import worker as worker_module
from search.studies.tuning.objective import Outcome, objective_value, search_outcome
from search.studies.tuning.report import (
    full_trials,
    plot_tuning,
    progress_curve,
    study_record,
    summary_table,
    tuning_figure,
)
from search.studies.tuning.solvers import SOLVERS, Fidelities
from search.studies.tuning.worker import (
    TuningTask,
    epochs_spent,
    open_storage,
    open_study,
    work,
    work_through,
)

FIDELITIES = Fidelities(0.01, 10.0, 2, 8)
BEST = 0.5
"""λ at which the runtime meets the target of 80, below which Eq. 19 scales the accuracy down."""


def known(weight: float, epochs: int, report: Callable[[Outcome], None]) -> Outcome:
    """Accuracy and runtime fall with λ, faster where more epochs are searched."""
    outcome = Outcome(0, 0, 0)
    for epoch in range(1, epochs + 1):
        pull = math.log(weight / BEST) * min(epoch / 8 + 0.5, 1)
        outcome = Outcome(epoch, 90 - 3 * max(pull, 0) - (8 - epoch), 80 * math.exp(-0.3 * pull))
        report(outcome)
    return outcome


def evaluate(weight: float, epochs: int, seed: int, report: Callable[[Outcome], None]) -> Outcome:
    return known(weight, epochs, report)


@pytest.fixture
def storage(tmp_path: Path) -> Any:
    return open_storage(f"sqlite:///{tmp_path}/tune.db", heartbeat=1)


def test_equation_19() -> None:
    assert objective_value(75.0, 79.0, 80.0) == 75.0
    assert objective_value(75.0, 80.0, 80.0) == 75.0
    assert objective_value(75.0, 100.0, 80.0) == 75.0 * 80 / 100


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_keeps_its_budget(storage: Any, solver: str) -> None:
    task = TuningTask(solver, 80.0, 96, FIDELITIES)
    study = work(task, storage, evaluate)
    trials = study.get_trials()
    if SOLVERS[solver].size:
        assert epochs_spent(trials) == 8 * sum(range(2, 9))  # eight λ, each with 2 to 8 epochs
    else:
        assert 96 - 8 < epochs_spent(trials) <= 96
    record = study_record(task, study)
    assert {trial["state"] for trial in record["trials"]} <= {"complete", "pruned"}
    pruned = [trial for trial in record["trials"] if trial["state"] == "pruned"]
    assert bool(pruned) == SOLVERS[solver].stops_early
    assert all(2 <= trial["epochs"] < 8 for trial in pruned)
    best = max(full_trials(record), key=lambda trial: trial["value"])
    if solver != "grid":
        assert best["value"] > 87  # 90 at λ = 0.5; 67 at 0.01 and 81 at 10
    if SOLVERS[solver].chooses_epochs:
        assert len({trial["epochs"] for trial in record["trials"]}) > 1


@pytest.mark.slow
def test_bayesian_optimisation_comes_close(storage: Any) -> None:
    study = work(TuningTask("bayesian", 80.0, 160, FIDELITIES), storage, evaluate)
    assert study.best_params["lambda"] == pytest.approx(BEST, rel=0.3)


def test_a_finished_study_is_not_continued(storage: Any) -> None:
    task = TuningTask("random", 80.0, 24, FIDELITIES)
    work(task, storage, evaluate)

    def fail(*_: Any) -> Outcome:
        raise AssertionError("searched again")

    assert len(work(task, storage, fail).trials) == 3


class Pauses:
    """In place of the worker's ``time``: hands every pause over, which ends when the test says."""

    def __init__(self) -> None:
        self.begun: queue.Queue[float] = queue.Queue()
        self.over: queue.Queue[None] = queue.Queue()

    def sleep(self, seconds: float) -> None:
        self.begun.put(seconds)
        self.over.get(timeout=120)


def test_the_last_point_of_a_grid_is_not_searched_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another worker has it under way, there is nothing left to begin."""
    # the other one gives no sign of life, and is not to be taken for dead on a slow machine
    storage = open_storage(f"sqlite:///{tmp_path}/tune.db", heartbeat=600)
    pauses = Pauses()
    monkeypatch.setattr(worker_module, "time", pauses)
    task = TuningTask("grid", 80.0, 8, dataclasses.replace(FIDELITIES, max_epochs=3))
    study = open_study(task, storage)
    elsewhere = study.ask()
    worker = threading.Thread(target=work, args=(task, storage, evaluate, 0.05), daemon=True)
    worker.start()
    for _ in range(3):  # it looks again, and finds nothing again
        assert pauses.begun.get(timeout=120) == 0.05
        assert len(study.trials) == 16
        pauses.over.put(None)
    points = {(trial.params["lambda"], trial.params["epochs"]) for trial in study.trials[1:]}
    assert len(points) == 15
    assert pauses.begun.get(timeout=120) == 0.05
    storage.set_trial_state_values(elsewhere._trial_id, TrialState.COMPLETE, [80.0])
    pauses.over.put(None)
    worker.join(120)
    assert not worker.is_alive()
    assert len(study.trials) == 16


def test_trials_of_another_recipe_are_not_continued(storage: Any) -> None:
    task = TuningTask("random", 80.0, 24, FIDELITIES, recipe={"SOLVER": {"BASE_LR": 0.1}})
    work(task, storage, evaluate)
    work(dataclasses.replace(task, budget=32), storage, evaluate)
    other = dataclasses.replace(task, recipe={"SOLVER": {"BASE_LR": 0.2}})
    with pytest.raises(UserError, match=r"holds trials of the recipe .*BASE_LR 0.1, and .* 0.2;"):
        work(other, storage, evaluate)
    other = dataclasses.replace(task, fidelities=dataclasses.replace(FIDELITIES, highest=5.0))
    with pytest.raises(UserError, match=r"fidelities.highest 10.0, and this is .* 5.0;"):
        work(other, storage, evaluate)


def test_a_diverging_search_costs_its_epochs_and_no_more(storage: Any) -> None:
    def diverges(weight: float, epochs: int, seed: int, report: Any) -> Outcome:
        if weight > 1:
            raise FloatingPointError("the loss is nan")
        return known(weight, epochs, report)

    study = work(TuningTask("random", 80.0, 80, FIDELITIES), storage, diverges)
    states = [trial.state.name for trial in study.trials]
    assert set(states) == {"COMPLETE", "PRUNED"}
    assert len(states) == 10


WORKER = """
import sys, time
from search.studies.tuning.solvers import Fidelities
from search.studies.tuning.worker import TuningTask, open_storage, work
from tests.search.studies.tuning.test_tuning import known

def evaluate(weight, epochs, seed, report):
    with open(sys.argv[2], "a") as log:
        log.write(f"{weight!r}\\n")
    time.sleep(float(sys.argv[3]))
    return known(weight, epochs, report)

work(TuningTask("random", 80.0, 64, Fidelities(0.01, 10.0, 2, 8)),
     open_storage(sys.argv[1], heartbeat=1), evaluate, poll=0.5)
"""


@pytest.mark.slow
def test_two_workers_share_a_study_and_one_is_killed(tmp_path: Path, storage: Any) -> None:
    """Kill -9 in the middle of a trial: the other worker makes it again, and no trial twice."""
    url = f"sqlite:///{tmp_path}/tune.db"
    task = TuningTask("random", 80.0, 64, FIDELITIES)
    open_study(task, storage)
    root = Path(__file__).resolve().parents[4]
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def start(log: str, seconds: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, url, str(tmp_path / log), str(seconds)]
        return subprocess.Popen(command, env=environment, cwd=root)

    victim = start("victim", 3600)
    other = start("other", 0.3)
    deadline = time.monotonic() + 300
    while not (tmp_path / "victim").exists():
        assert time.monotonic() < deadline
        assert victim.poll() is None
        time.sleep(0.05)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert other.wait(timeout=300) == 0
    (lost,) = (tmp_path / "victim").read_text().split()
    made = (tmp_path / "other").read_text().split()
    assert lost in made
    assert len(made) == len(set(made)) == 8
    states = [trial.state.name for trial in open_study(task, storage).trials]
    assert sorted(states) == ["COMPLETE"] * 8 + ["FAIL"]


def test_a_worker_goes_through_all_studies(
    tmp_path: Path, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``--workers`` starts them: what it needs can be pickled, and nothing is left for later."""
    tasks = [TuningTask("random", 80.0, 24, FIDELITIES, seed) for seed in range(2)]
    cfg = load_search_config("search/digits_small.yaml", [])
    call = partial(work_through, tasks, f"sqlite:///{tmp_path}/tune.db", 1, cfg)
    monkeypatch.setattr(worker_module, "search_outcome", lambda cfg, stops_early: evaluate)
    pickle.loads(pickle.dumps(call))()

    def fail(*_: Any) -> Outcome:
        raise AssertionError("searched again")

    assert [len(work(task, storage, fail).trials) for task in tasks] == [3, 3]


def test_a_real_search_reports_every_epoch(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs on a few images: what Eq. 19 sees is what results of the search say."""
    options = [
        *("CLASSIFICATION.DATASET", str(images), "CLASSIFICATION.NUM_CLASSES", "2"),
        *("CLASSIFICATION.INPUT_SIZE", "32", "SOLVER.IMS_PER_BATCH", "4"),
        *("SEARCH.CALIBRATION_BATCHES", "1", "CLASSIFICATION.CHECKPOINT_EPOCHS", "1.0"),
    ]
    cfg = load_search_config("search/digits.yaml", options)
    seen: list[Outcome] = []
    written: list[dict[str, Any]] = []
    write = SearchTrainer.write_results

    def kept(self: SearchTrainer, results: dict[str, Any]) -> None:
        written.append(results["search"])
        write(self, results)

    monkeypatch.setattr(SearchTrainer, "write_results", kept)
    last = search_outcome(cfg, report_every_epoch=True)(0.3, 2, 0, seen.append)
    assert [outcome.epochs for outcome in seen] == [1, 2]
    assert seen[-1] == last
    (results,) = written
    assert results["predicted_runtime"] == pytest.approx(last.runtime, abs=1e-3)
    assert results["val"]["top1"] == last.accuracy
    seen.clear()
    search_outcome(cfg, report_every_epoch=False)(0.3, 1, 0, seen.append)
    assert [outcome.epochs for outcome in seen] == [1]


def test_report_by_hand(tmp_path: Path) -> None:
    def trial(number: int, state: str, epochs: float, value: float) -> dict[str, Any]:
        known = {"lambda": 0.1 * (number + 1), "accuracy": value, "runtime": 79.0}
        return {"number": number, "state": state, "epochs": epochs, "value": value, **known}

    trials = [
        trial(0, "complete", 4, 99.0),  # not a full search
        trial(1, "complete", 8, 70.0),
        trial(2, "pruned", 2, 80.0),
        trial(3, "complete", 8, 75.0),
        trial(4, "complete", 8, 60.0),
        {**trial(5, "fail", 0, 0.0), "epochs": None, "value": None},  # its worker was killed
    ]
    record = {"solver": "hyperband", "seed": 0, "max_epochs": 8, "trials": trials}
    assert progress_curve(record) == [(12, 70), (14, 70), (22, 75), (30, 75)]
    table = summary_table([record, {**record, "trials": trials[:3]}], "ms")
    assert "| 2         | 8        | 72.50 ± 3.54" in table
    assert "0.4" in table
    grid = {**record, "solver": "grid"}
    plot_tuning([record, grid], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    check_panels(record, grid)
    json.dumps([record])


def check_panels(record: dict[str, Any], grid: dict[str, Any]) -> None:
    """None is empty, and lines of one course are all seen."""
    curves, cells, _colors = tuning_figure([record, grid]).axes
    assert (curves.get_xlabel(), cells.get_xlabel()) == ("epochs spent", "λ")
    (only,) = tuning_figure([record]).axes
    assert only.get_xlabel() == "epochs spent"
    assert tuning_figure([grid]).axes[0].get_xlabel() == "λ"
    assert not tuning_figure([{**record, "trials": []}]).axes
    (same,) = tuning_figure([{**record, "solver": name} for name in "abc"]).axes
    widths = [line.get_linewidth() for line in same.lines]
    assert widths == sorted(set(widths), reverse=True)
    assert len({line.get_linestyle() for line in same.lines}) == 3


def test_a_worker_that_lost_the_race_for_a_new_database_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy looks for the tables before it makes them; another worker can be in between."""
    url = f"sqlite:///{tmp_path}/tune.db"
    open_storage(url)
    create_all = sqlalchemy.schema.MetaData.create_all

    def late(metadata: Any, engine: Any, **_: Any) -> None:
        monkeypatch.setattr(sqlalchemy.schema.MetaData, "create_all", create_all)
        create_all(metadata, engine, checkfirst=False)

    monkeypatch.setattr(sqlalchemy.schema.MetaData, "create_all", late)
    task = TuningTask("random", 80.0, 24, FIDELITIES)
    assert len(work(task, open_storage(url), evaluate).trials) == 3


def test_mistakes(storage: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown solver 'luck'; expected one of random, bayes"):
        open_study(TuningTask("luck", 80.0, 64, FIDELITIES), storage)
    for url in ("tune.db", f"sqlite:///{tmp_path}/no/such/folder/tune.db", "nosql://x"):
        with pytest.raises(UserError, match="cannot open the storage"):
            open_storage(url)
