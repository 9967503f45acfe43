"""A study whose workers are interrupted or killed makes the trials of the undisturbed one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.studies.tuning.attempts import ordinal
from search.studies.tuning.objective import Outcome
from search.studies.tuning.report import progress_curve, study_record
from search.studies.tuning.worker import TuningTask, epochs_spent, open_storage, open_study, work
from tests.search.studies.tuning.test_tuning import FIDELITIES, known

Report = Callable[[Outcome], None]


class Searches:
    """Counts the searches; those by the numbers of ``interrupted`` end before their result."""

    def __init__(self, *interrupted: int) -> None:
        self.interrupted = interrupted
        self.made: list[tuple[float, int, int]] = []
        self.begun = 0

    def __call__(self, weight: float, epochs: int, seed: int, report: Report) -> Outcome:
        self.begun += 1
        outcome = known(weight, epochs, report)
        if self.begun in self.interrupted:
            raise KeyboardInterrupt
        self.made.append((weight, epochs, seed))
        return outcome


@pytest.mark.parametrize("solver", ["random", "bayesian"])
def test_interrupted_trials_are_made_again(tmp_path: Path, solver: str) -> None:
    """One of them twice."""
    task = TuningTask(solver, 80.0, 56, FIDELITIES)
    undisturbed = Searches()
    whole = work(task, open_storage(f"sqlite:///{tmp_path}/whole.db"), undisturbed)
    storage = open_storage(f"sqlite:///{tmp_path}/parts.db", heartbeat=1)
    searches = Searches(2, 3, 6)
    for _ in searches.interrupted:
        with pytest.raises(KeyboardInterrupt):
            work(task, storage, searches)
    parts = work(task, storage, searches, poll=0.1)
    assert searches.made == undisturbed.made
    assert epochs_spent(parts.trials) == epochs_spent(whole.trials) == 56
    states = [trial.state for trial in parts.trials]
    assert states.count(TrialState.FAIL) == 3
    assert states.count(TrialState.COMPLETE) == len(states) - 3 == len(whole.trials)
    done = sorted(ordinal(parts, t.number) for t in parts.trials if t.state == TrialState.COMPLETE)
    assert done == list(range(7))
    curves = [progress_curve(study_record(task, study)) for study in (whole, parts)]
    assert curves[0] == curves[1]


def test_a_worker_killed_before_its_first_sign_of_life(tmp_path: Path) -> None:
    """Its trial is made again, if later than others: nobody knows at once that it is dead."""
    task = TuningTask("random", 80.0, 32, FIDELITIES)
    undisturbed, searches = Searches(), Searches()
    work(task, open_storage(f"sqlite:///{tmp_path}/whole.db"), undisturbed)
    storage = open_storage(f"sqlite:///{tmp_path}/parts.db", heartbeat=1)
    open_study(task, storage).ask()
    study = work(task, storage, searches, poll=0.1)
    assert sorted(searches.made) == sorted(undisturbed.made)
    assert searches.made != undisturbed.made
    states = [trial.state for trial in study.trials]
    assert [states.count(state) for state in (TrialState.FAIL, TrialState.COMPLETE)] == [1, 4]


def test_a_trial_without_attempts_keeps_its_number(tmp_path: Path) -> None:
    task = TuningTask("random", 80.0, 24, FIDELITIES)
    study: Any = work(task, open_storage(f"sqlite:///{tmp_path}/tune.db"), Searches())
    assert [ordinal(study, trial.number) for trial in study.trials] == [0, 1, 2]
