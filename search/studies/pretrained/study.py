"""The study: networks of adapted supernets at parts of the start's runtime, fine-tuned alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from backbones.errors import UserError
from backbones.files import write_atomic
from search.auto.narrowed import width_for
from search.auto.scale import Scale
from search.profiling.workload import type_names
from search.runs.build import build_runtime_model
from search.runs.formulations.values import SENSITIVITY_FILE
from search.start.seed import seed_of
from search.studies.pretrained.choosing import BLIND_FILE, Row
from search.studies.pretrained.grounds import Ground, Trainer, ground_of
from search.studies.trials import (
    PendingTrial,
    mean_and_spread,
    recipe,
    run_trials,
    trial_config,
    waiting_trials,
)
from search.studies.workers import HERE, Call, Workers, run_calls

logger = logging.getLogger(__name__)

WIDTH = "width "
"""Before the factor of a narrowed network, where others have the types of their layers."""

_ENOUGH = 3
"""Networks of a control whose standard deviation says something."""

Summary = Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]


def start_runtime(cfg: CfgNode) -> float:
    """Runtime of the network that a search starts from, in the table's unit.

    Raises:
        UserError: if it starts from none.
    """
    seed = seed_of(cfg)
    if seed is None:
        raise UserError(
            "SEARCH.START is empty; name the network that the study cuts its networks out of"
        )
    return build_runtime_model(cfg, seed.space).runtime_of(seed.choices)


@dataclass(frozen=True)
class Supernets:
    """The adapted supernets that networks are cut out of, in folders of their own.

    Attributes:
        ground: what they are trained on.
        cfg: of every one.
        folder: of them all, named by formulation and seed.
        full: runtime of the start, in the table's unit.
    """

    ground: Ground
    cfg: CfgNode
    folder: Path
    full: float

    def opened(self, formulation: str, seed: int) -> Trainer:
        """The run of one, where it is by now.

        Its target is 0.6 of the start's runtime; only thresholds are trained for it.
        """
        target = str(round(0.6 * self.full, 6))
        options = ("SEARCH.FORMULATION", formulation, "SEARCH.TARGET", target)
        cfg = trial_config(self.cfg, seed, self.folder / f"{formulation}{seed}", options)
        seed_all_rng(seed)
        trainer = self.ground.trainer(cfg)
        by_path = {"path": ""} if hasattr(trainer, "networks") else {}
        trainer.resume_or_load(**by_path, resume=True)
        return trainer

    def adapted(self, formulation: str, seed: int) -> Trainer:
        """The run of one, trained to its end; one that was interrupted goes on."""
        trainer = self.opened(formulation, seed)
        trainer.train()
        return trainer

    def measured(self, formulation: str, seed: int, rows: Sequence[Row]) -> None:
        """Adapts one, and measures in it what all networks of a row are chosen by."""
        trainer = self.adapted(formulation, seed)
        for row in rows:
            if row.measure:
                row.measure(trainer, trainer.judge)

    def read(self, place: Path, formulation: str, seed: int) -> Trainer:
        """The run of one that is adapted; its folder stays as it is, so that many can read it.

        Args:
            place: for what is measured in it, beside what has been.
            formulation: of the supernet.
            seed: of the supernet.

        Raises:
            UserError: if it is not trained to its end.
        """
        trainer = self.opened(formulation, seed)
        folder = Path(trainer.cfg.OUTPUT_DIR)
        if trainer.start_iter < trainer.max_iter:
            raise UserError(
                f"the supernet in '{folder}' is at iteration {trainer.start_iter} of "
                f"{trainer.max_iter}; start the same command again, which trains it to its end"
            )
        place.mkdir(parents=True, exist_ok=True)
        for name in (SENSITIVITY_FILE, BLIND_FILE):
            if (folder / name).exists() and not (place / name).exists():
                write_atomic(place / name, (folder / name).read_bytes())
        trainer.cfg = trial_config(trainer.cfg, trainer.cfg.SEED, place)
        return trainer


def run_study(
    search_cfg: CfgNode,
    training_cfg: CfgNode,
    rows: Mapping[str, Row],
    trials: Sequence[tuple[str, float, int]],
    folder: Path,
    output: Path,
    facts: Mapping[str, Any],
    workers: Workers = HERE,
) -> dict[str, Any]:
    """Runs the trials that ``output`` does not hold yet, saving after each one.

    Args:
        search_cfg: of every supernet.
        training_cfg: of every fine-tuning.
        rows: by name.
        trials: name of a row, part of the start's runtime and seed of each.
        folder: for supernets and networks; both are kept.
        output: JSON file of the study.
        facts: command, hardware and settings, written beside the trials.
        workers: one here adapts a supernet when its first trial comes; others adapt all that are
            needed first, and each trial then reads its own from its folder.

    Raises:
        UserError: if ``output`` holds trials of another recipe.
    """
    ground, full = ground_of(search_cfg), start_runtime(search_cfg)
    supernets = Supernets(ground, search_cfg, folder, full)
    kept = lru_cache(maxsize=3)(supernets.adapted)
    pending: list[PendingTrial] = []
    for name, part, seed in trials:
        place = folder / name / f"{part:g}" / str(seed)
        supernet = kept if workers.here else partial(supernets.read, place)
        run = partial(_trial, supernet, ground, training_cfg, place, rows[name], part * full, seed)
        pending.append(({"row": name, "part": part, "seed": seed}, run))
    training = {**recipe(training_cfg), "data": list(training_cfg.DATASETS.TRAIN)}
    settings = {"search": recipe(search_cfg, "SEARCH"), "training": training}
    known = {**facts, "start_runtime": round(full, 4), "recipe": settings}
    if not workers.here:
        keys = [key for key, _ in waiting_trials(pending, output, settings)]
        needed = [(rows[key["row"]], key["seed"]) for key in keys]
        adapt(needed, supernets, settings["search"], workers)
    return run_trials(pending, output, known, partial(summary, ground.scores, full), workers)


def adapt(
    trials: Iterable[tuple[Row, int]], supernets: Supernets, settings: Any, workers: Workers
) -> None:
    """Adapts the supernets that trials need, some at a time; those that are there are kept.

    Args:
        trials: row and seed of each.
        supernets: where they are.
        settings: that they depend on.
        workers: as for :func:`run_study`.
    """
    needed: dict[tuple[str, int], list[Row]] = {}
    for row, seed in trials:
        users = needed.setdefault(_supernet_of(row, seed), [])
        if row not in users:
            users.append(row)
    calls = []
    for (name, seed), users in needed.items():
        run = partial(supernets.measured, name, seed, users)
        calls.append(Call(f"supernet {name}, seed {seed}", run, settings))
    for index, _ in run_calls(calls, workers):
        logger.info("Adapted: %s", calls[index].name)


def _supernet_of(row: Row, seed: int) -> tuple[str, int]:
    """Formulation and seed of the supernet that a trial's network is cut out of."""
    return row.formulation, seed if row.own_supernet else 0


def _trial(
    supernets: Callable[[str, int], Trainer],
    ground: Ground,
    training_cfg: CfgNode,
    place: Path,
    row: Row,
    target: float,
    seed: int,
) -> dict[str, Any]:
    trainer = supernets(*_supernet_of(row, seed))
    choices = row.choose(trainer, trainer.judge, target, seed)
    if row.narrows:
        whole = trainer.space.architecture(choices, "start")
        found = width_for(Scale.of(trainer.runtime_model.table, whole), target)
        runtime, layers = found.runtime, f"{WIDTH}{found.width_mult:g}"
        ground.narrow(trainer, found.width_mult, place)
    else:
        runtime = trainer.runtime_model.runtime_of(choices)
        layers = type_names(trainer.space, choices)
        ground.cut(trainer, choices, place)
    scores = ground.fine_tuned(trial_config(training_cfg, seed), place)
    return {"runtime": round(runtime, 4), "layers": layers, **scores}


def summary(
    scores: Sequence[str], full: float, trials: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Mean and sample standard deviation of every row at every part of the runtime.

    Args:
        scores: keys of the trials.
        full: runtime of the start, in the table's unit.
        trials: of all rows.

    Returns:
        For every row also ``furthest``, the largest distance of a network from its target as
        predicted, and ``measured_furthest`` that of a prediction from its measurement where there
        are any, both in percent. Under ``margins`` is by how much the mean of the first score is
        above those of the controls at the same target, in standard deviations of theirs, where
        there are three networks or more.
    """
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for trial in trials:
        groups.setdefault((trial["row"], trial["part"]), []).append(trial)
    rows = []
    for (name, part), group in groups.items():
        row: dict[str, Any] = {"row": name, "part": part, "networks": len(group)}
        for key in ("runtime", *scores):
            row[f"{key}_mean"], row[f"{key}_std"] = mean_and_spread(group, key)
        row["furthest"] = max(100 * abs(trial["runtime"] / (part * full) - 1) for trial in group)
        if all("measured_error" in trial for trial in group):
            row["measured_furthest"] = max(abs(trial["measured_error"]) for trial in group)
        row["margins"] = {}
        for control in ("random", "drop", "blind"):
            others = groups.get((control, part), [])
            if name == control or len(others) < _ENOUGH:
                continue
            mean, spread = mean_and_spread(others, scores[0])
            if spread:
                row["margins"][control] = (row[f"{scores[0]}_mean"] - mean) / spread
        rows.append(row)
    return rows
