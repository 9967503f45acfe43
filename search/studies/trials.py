"""Runs the trials of a study once each, saving its JSON file after every trial."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from backbones.errors import UserError
from backbones.files import differing, leaves, read_json, write_json
from backbones.latency import LatencyTable
from detection.engine.results import mean_and_deviation
from search.runs.build import build_latency_table
from search.space import SearchSpace
from search.start.seed import search_space
from search.studies.workers import HERE, Call, Workers, run_calls

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
PendingTrial = tuple[Record, Callable[[], Record]]
"""The key of a trial (its identifying fields) and the function that runs it."""

SOLVER_KEYS = (
    *("OPTIMIZER", "OPTIMIZER_EPS", "MOMENTUM", "BASE_LR", "DECAY", "WARMUP_EPOCHS"),
    *("WARMUP_FACTOR", "WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "IMS_PER_BATCH"),
)


def run_trials(
    pending: Sequence[PendingTrial],
    output: Path,
    facts: Record,
    summarize: Callable[[Sequence[Record]], list[dict[str, Any]]],
    workers: Workers = HERE,
) -> dict[str, Any]:
    """Runs the trials that ``output`` does not hold yet, saving after each one.

    Args:
        pending: in the order in which they are begun.
        output: JSON file of the study.
        facts: command, hardware and settings, written beside the trials. ``recipe``, where
            given, is what all trials of a file have to share.
        summarize: from all trials to the rows of the study's table.
        workers: where they run; unless in this process, they have to be picklable.

    Returns:
        What the file then holds.

    Raises:
        UserError: if the file cannot be read, or its trials were run by another recipe; of a
            cluster, if a job failed.
    """
    settings = facts.get("recipe")
    waiting = waiting_trials(pending, output, settings)
    study = _read_study(output)
    calls = [Call(trial_name(key), run, [key, settings]) for key, run in waiting]
    for index, record in run_calls(calls, workers):
        key, _ = waiting[index]
        study["trials"].append({**key, **record})
        study.update(facts, summary=summarize(study["trials"]))
        write_json(output, study)
        logger.info("Trial of %s", calls[index].name)
    if study["trials"] and not waiting:  # facts and summary may have changed since
        study.update(facts, summary=summarize(study["trials"]))
        write_json(output, study)
    return study


def waiting_trials(
    pending: Sequence[PendingTrial], output: Path, recipe: Any
) -> list[PendingTrial]:
    """Those trials that a study's file does not hold yet.

    Args:
        pending: all of them.
        output: JSON file of the study.
        recipe: of the trials to come.

    Raises:
        UserError: if the file cannot be read, or its trials were run by another recipe.
    """
    study = _read_study(output)
    if study["trials"]:
        check_recipe(output, study.get("recipe"), recipe)
    return [
        (key, run)
        for key, run in pending
        if not any(key.items() <= trial.items() for trial in study["trials"])
    ]


def _read_study(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(output, "study") if output.exists() else {"trials": []}
    return found


def trial_name(key: Record) -> str:
    """A trial by its identifying fields, for people."""
    return ", ".join(f"{name} {value}" for name, value in key.items())


def check_recipe(place: Path | str, before: Any, recipe: Any) -> None:
    """Insists on one recipe for all trials of a study.

    Args:
        place: where its trials are kept.
        before: recipe of those.
        recipe: of those to come.

    Raises:
        UserError: naming what differs.
    """
    old, new = (leaves(json.loads(json.dumps(found))) for found in (before, recipe))
    if changed := differing(old, new):
        was, now = (
            ", ".join(f"{key} {found.get(key)}".strip() for key in changed) for found in (old, new)
        )
        raise UserError(
            f"'{place}' holds trials of the recipe {was}, and this is {now}; name another one, "
            "or ask for the same recipe"
        )


def mean_and_spread(records: Sequence[Record], key: str) -> tuple[float, float]:
    """Mean and sample standard deviation of a figure; of one trial, 0."""
    return mean_and_deviation([float(record[key]) for record in records])


def trial_config(
    cfg: CfgNode, seed: int, folder: Path | None = None, options: Sequence[str] = ()
) -> CfgNode:
    """A trial's own copy of a configuration.

    Args:
        cfg: of all trials.
        seed: of this one.
        folder: where it runs, without W&B and without measuring what it finds; None leaves all
            three as they are.
        options: further keys and their values, in turns.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if folder is not None:
        cfg.merge_from_list(["OUTPUT_DIR", str(folder), "WANDB.ENABLED", "False"])
        cfg.SEARCH.MEASURE = False
    cfg.merge_from_list(list(options))
    cfg.SEED = seed
    return cfg


def recipe(cfg: CfgNode, *sections: str) -> dict[str, Any]:
    """What determines the result of a training or a search, apart from its seed.

    Args:
        cfg: of all trials.
        sections: of the configuration, beside the classifier's and the solver's; with ``SEARCH``,
            the contents of the space and of the latency table belong to it as well.
    """
    keys: dict[str, Any] = {name: dict(cfg[name]) for name in ("CLASSIFICATION", *sections)}
    searching = keys.get("SEARCH", {})
    searching.pop("MEASURE", None)
    if not searching.get("REFIT_BATCHES"):  # as results from before the key have it
        searching.pop("REFIT_BATCHES", None)
    keys["SOLVER"] = {key: cfg.SOLVER[key] for key in SOLVER_KEYS}
    amp = cfg.SOLVER.AMP
    named = {"DTYPE": amp.DTYPE} if amp.ENABLED and amp.DTYPE != "auto" else {}
    keys["SOLVER"]["AMP"] = {"ENABLED": amp.ENABLED, **named}
    spnas = cfg.MODEL.SPNAS
    keys["MODEL"] = {"WEIGHTS": cfg.MODEL.WEIGHTS, "SPNAS": {"WIDTH_MULT": spnas.WIDTH_MULT}}
    if "SEARCH" in sections:
        space = search_space(cfg)
        table = build_latency_table(cfg, space)
        keys["contents"] = {"space": _digest(space), "latency_table": _digest(table)}
    return keys


def _digest(data: SearchSpace | LatencyTable) -> str:
    """Twelve hexadecimal digits that stand for the contents of a file."""
    return hashlib.sha256(json.dumps(data.to_dict(), sort_keys=True).encode()).hexdigest()[:12]
