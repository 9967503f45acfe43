"""Trials and the attempts at them: one that was killed is made again, and counts once."""

from __future__ import annotations

from typing import Any

_HISTORY = "retry_history"
_FIRST = "failed_trial"
"""What Optuna's retry callback notes at a new attempt: those before, and the first of them."""


def ordinal(study: Any, number: int) -> int:
    """The number that an attempt would have, had none been killed.

    What a trial draws is seeded by it, so that a study that was interrupted tries what the
    uninterrupted one does.

    Args:
        study: of the trial.
        number: of the attempt, in the order in which Optuna made them.
    """
    trials = study.get_trials(deepcopy=False)
    own = next(trial for trial in trials if trial.number == number)
    first = own.system_attrs.get(_FIRST, number)
    return int(first) - sum(
        trial.number < first for trial in trials if trial.system_attrs.get(_HISTORY)
    )


def take_up(study: Any) -> None:
    """Looks after the trials of processes that have ended, where Optuna would not.

    It queues a trial again when its worker falls silent. Not so one whose worker was killed before
    its first sign of life, or was interrupted, or was killed while it was queueing another's.

    Args:
        study: that a worker begins, or goes on, to work on.
    """
    import optuna
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    again = {number for trial in trials for number in trial.system_attrs.get(_HISTORY, ())}
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            # Its time runs from now on, unless it is alive.
            study._storage.record_heartbeat(trial._trial_id)
        elif trial.state == TrialState.FAIL and trial.number not in again:
            optuna.storages.RetryHeartbeatStaleTrialCallback()(study, trial)
