"""Worker of a tuning study: runs trials until the shared budget is spent."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from detectron2.config import CfgNode

from backbones.errors import UserError
from backbones.extras import require
from search.studies.trials import check_recipe
from search.studies.tuning.attempts import ordinal, take_up
from search.studies.tuning.objective import Evaluate, Outcome, objective_value, search_outcome
from search.studies.tuning.solvers import SOLVERS, Fidelities

logger = logging.getLogger(__name__)

STORAGE_ATTEMPTS = 5
"""Attempts to open the storage: workers that start at once may all try to create its tables."""


@dataclass(frozen=True)
class TuningTask:
    """Specification of a tuning study.

    Attributes:
        solver: a key of ``SOLVERS``.
        target: runtime in the unit of the latency table.
        budget: epochs in all, over all trials and workers; a grid takes what it needs.
        fidelities: the λ and epochs to choose from.
        seed: of the solver; a trial's search is seeded by it and by the trial's ordinal.
        recipe: of the searches; trials of another one are not continued.
    """

    solver: str
    target: float
    budget: float
    fidelities: Fidelities
    seed: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def study_name(self) -> str:
        """Workers that name the same study share it."""
        return f"{self.solver}-{self.target:g}-seed{self.seed}"


def open_storage(url: str, heartbeat: int = 30) -> Any:
    """A storage in which a trial whose worker died is queued again.

    Args:
        url: of a database that all workers reach, e.g. ``sqlite:///output/tune.db``.
        heartbeat: seconds between signs of life; a worker silent for four times as long is dead.

    Raises:
        UserError: if Optuna is not installed, or the database cannot be opened.
    """
    require("optuna", "sqlalchemy", extra="tune")
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # heartbeats and BoTorch's sampler have been "experimental" since Optuna 2
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    sqlite = url.startswith("sqlite")  # waits for another worker's write, by default 5 seconds
    for attempt in range(STORAGE_ATTEMPTS):
        try:
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": 60}} if sqlite else {},
                heartbeat_interval=heartbeat,
                grace_period=4 * heartbeat,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            )
        except (SQLAlchemyError, ImportError) as error:
            reason = str(error).splitlines()[0]
            if "already exists" not in reason:
                break
            time.sleep(0.5 * (attempt + 1))  # another worker is making the tables just now
    raise UserError(
        f"cannot open the storage '{url}': {reason}; expected a database URL that Optuna "
        "knows, such as sqlite:///output/tune.db"
    )


def open_study(task: TuningTask, storage: Any) -> Any:
    """The task's study, made by the first worker that asks for it.

    Raises:
        UserError: if the solver is unknown, or the storage has trials of another recipe.
    """
    import optuna

    if task.solver not in SOLVERS:
        raise UserError(f"unknown solver '{task.solver}'; expected one of {', '.join(SOLVERS)}")
    solver = SOLVERS[task.solver]
    study = optuna.create_study(
        storage=storage,
        study_name=task.study_name,
        sampler=solver.sampler(task.fidelities, task.seed),
        pruner=solver.pruner(task.fidelities),
        direction="maximize",
        load_if_exists=True,
    )
    recipe = {"searches": task.recipe, "fidelities": asdict(task.fidelities)}
    place = f"study {task.study_name} in the storage"
    check_recipe(place, study.user_attrs.get("recipe", recipe), recipe)
    study.set_user_attr("recipe", recipe)
    return study


def work(task: TuningTask, storage: Any, evaluate: Evaluate, poll: float = 5.0) -> Any:
    """Runs trials of a study until its budget is spent and none is under way anywhere.

    Args:
        task: what to look for.
        storage: from :func:`open_storage`.
        evaluate: runs one search.
        poll: seconds between looks at trials that others still run.

    Returns:
        The study.
    """
    import optuna
    from optuna.trial import TrialState

    study = open_study(task, storage)
    longest = task.fidelities.max_epochs
    size = SOLVERS[task.solver].size
    budget, most = (task.budget, math.inf) if size is None else (math.inf, size(task.fidelities))

    def run(trial: Any) -> float:
        return _run_trial(task, trial, evaluate)

    take_up(study)
    while True:
        optuna.storages.fail_stale_trials(study)
        trials = study.get_trials(deepcopy=False)
        states = [trial.state for trial in trials]
        under_way = states.count(TrialState.RUNNING)
        reserved = under_way * longest
        if TrialState.WAITING in states or (
            epochs_spent(trials) + reserved + longest <= budget
            and len(states) - states.count(TrialState.FAIL) < most
        ):
            study.optimize(run, n_trials=1)
        elif under_way:
            time.sleep(poll)
        else:
            return study


def work_through(tasks: Sequence[TuningTask], url: str, heartbeat: int, cfg: CfgNode) -> None:
    """What one of several processes does for all studies, in their order.

    Args:
        tasks: the studies.
        url: as for :func:`open_storage`.
        heartbeat: the same.
        cfg: of every search.
    """
    storage = open_storage(url, heartbeat)
    for task in tasks:
        work(task, storage, search_outcome(cfg, SOLVERS[task.solver].stops_early))


def epochs_spent(trials: Sequence[Any]) -> float:
    """Epochs searched by all finished trials; of an attempt that was killed, none."""
    ended = (t for t in trials if t.state.is_finished() and t.state.name != "FAIL")
    return float(sum(trial.user_attrs.get("epochs", 0.0) for trial in ended))


def _run_trial(task: TuningTask, trial: Any, evaluate: Evaluate) -> float:
    import optuna

    space, solver = task.fidelities, SOLVERS[task.solver]
    weight = trial.suggest_float("lambda", space.lowest, space.highest, log=True)
    epochs = space.max_epochs
    if solver.chooses_epochs:
        epochs = trial.suggest_int("epochs", space.min_epochs, space.max_epochs)
    logger.info("Study %s, trial %d: λ %.4g", task.study_name, trial.number, weight)

    def report(outcome: Outcome) -> None:
        value = objective_value(outcome.accuracy, outcome.runtime, task.target)
        for name, fact in vars(outcome).items():
            trial.set_user_attr(name, fact)
        trial.set_user_attr("value", value)
        trial.report(value, int(outcome.epochs))
        if solver.stops_early and outcome.epochs < epochs and trial.should_prune():
            raise optuna.TrialPruned

    try:
        seed = 1000 * task.seed + ordinal(trial.study, trial.number)
        outcome = evaluate(weight, epochs, seed, report)
    except FloatingPointError as error:  # such a λ is no candidate, but it has cost its epochs
        logger.warning("λ %.4g: %s", weight, error)
        trial.set_user_attr("epochs", epochs)
        raise optuna.TrialPruned from error
    return objective_value(outcome.accuracy, outcome.runtime, task.target)
