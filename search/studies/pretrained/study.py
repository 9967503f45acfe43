"""The study: networks of adapted supernets at parts of the start's runtime, fine-tuned alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from backbones.errors import UserError
from search.profiling.workload import type_names
from search.runs.build import build_runtime_model
from search.start.seed import seed_of
from search.studies.pretrained.choosing import Row
from search.studies.pretrained.grounds import Ground, Trainer, ground_of
from search.studies.trials import PendingTrial, mean_and_spread, recipe, run_trials, trial_config

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


def run_study(
    search_cfg: CfgNode,
    training_cfg: CfgNode,
    rows: Mapping[str, Row],
    trials: Sequence[tuple[str, float, int]],
    folder: Path,
    output: Path,
    facts: Mapping[str, Any],
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

    Raises:
        UserError: if ``output`` holds trials of another recipe.
    """
    ground, full = ground_of(search_cfg), start_runtime(search_cfg)
    supernets = lru_cache(maxsize=3)(partial(adapted, ground, search_cfg, folder, full))
    pending: list[PendingTrial] = [
        (
            {"row": name, "part": part, "seed": seed},
            partial(
                _trial, supernets, ground, training_cfg, folder / name, rows[name], part, full, seed
            ),
        )
        for name, part, seed in trials
    ]
    training = {**recipe(training_cfg), "data": list(training_cfg.DATASETS.TRAIN)}
    settings = {"search": recipe(search_cfg, "SEARCH"), "training": training}
    known = {**facts, "start_runtime": round(full, 4), "recipe": settings}
    return run_trials(pending, output, known, partial(summary, ground.scores))


def adapted(
    ground: Ground, cfg: CfgNode, folder: Path, full: float, formulation: str, seed: int
) -> Trainer:
    """The run of a supernet, trained to its end; one that was interrupted goes on.

    Its target is 0.6 of the start's runtime; only thresholds are trained for it.
    """
    options = ("SEARCH.FORMULATION", formulation, "SEARCH.TARGET", str(round(0.6 * full, 6)))
    cfg = trial_config(cfg, seed, folder / f"{formulation}{seed}", options)
    seed_all_rng(seed)
    trainer = ground.trainer(cfg)
    trainer.resume_or_load(**({"path": ""} if hasattr(trainer, "networks") else {}), resume=True)
    trainer.train()
    return trainer


def _trial(
    supernets: Callable[[str, int], Trainer],
    ground: Ground,
    training_cfg: CfgNode,
    folder: Path,
    row: Row,
    part: float,
    full: float,
    seed: int,
) -> dict[str, Any]:
    trainer = supernets(row.formulation, seed if row.own_supernet else 0)
    choices = row.choose(trainer, trainer.judge, part * full, seed)
    place = folder / f"{part:g}" / str(seed)
    ground.cut(trainer, choices, place)
    scores = ground.fine_tuned(trial_config(training_cfg, seed), place)
    runtime = trainer.runtime_model.runtime_of(choices)
    layers = type_names(trainer.space, choices)
    return {"runtime": round(runtime, 4), "layers": layers, **scores}


def summary(scores: Sequence[str], trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation of every row at every part of the runtime.

    ``furthest`` is the largest distance of a network from its target, as a part of it. Under
    ``margins`` is by how much the mean of the first score is above those of the controls at the
    same target, in standard deviations of theirs.
    """
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for trial in trials:
        groups.setdefault((trial["row"], trial["part"]), []).append(trial)
    rows = []
    for (name, part), group in groups.items():
        row: dict[str, Any] = {"row": name, "part": part, "networks": len(group)}
        for key in ("runtime", *scores):
            row[f"{key}_mean"], row[f"{key}_std"] = mean_and_spread(group, key)
        row["margins"] = {}
        for control in ("random", "drop", "blind"):
            others = groups.get((control, part), [])
            if name == control or len(others) < 2:
                continue
            mean, spread = mean_and_spread(others, scores[0])
            if spread:
                row["margins"][control] = (row[f"{scores[0]}_mean"] - mean) / spread
        rows.append(row)
    return rows
