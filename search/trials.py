"""Trials of a study: each one run once, the JSON file saved after each, means and spreads."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from backbones.errors import UserError
from backbones.files import read_json, write_json

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
Job = tuple[Record, Callable[[], Record]]
"""What tells a trial from the others, and the function that runs it; its record has both."""


def run_trials(
    jobs: Sequence[Job],
    output: Path,
    facts: Record,
    summarize: Callable[[Sequence[Record]], list[dict[str, Any]]],
) -> dict[str, Any]:
    """Runs the trials that ``output`` does not hold yet, saving after each one.

    Args:
        jobs: in the order in which they are run.
        output: JSON file of the study.
        facts: command, hardware and settings, written beside the trials. ``recipe``, where
            given, is what all trials of a file have to share.
        summarize: from all trials to the rows of the study's table.

    Returns:
        What the file then holds.

    Raises:
        UserError: if the file cannot be read, or its trials were run by another recipe.
    """
    study: dict[str, Any] = {"trials": []}
    if output.exists():
        study = read_json(output, "study")
    before, recipe = study.get("recipe"), facts.get("recipe")
    if study["trials"] and before != recipe:
        raise UserError(
            f"'{output}' holds trials of the recipe {before}, and this is {recipe}; name another "
            "--output, or ask for the same recipe"
        )
    for key, run in jobs:
        if any(key.items() <= trial.items() for trial in study["trials"]):
            continue
        logger.info("Trial: %s", ", ".join(f"{name} {value}" for name, value in key.items()))
        study["trials"].append({**key, **run()})
        study.update(facts, summary=summarize(study["trials"]))
        write_json(output, study)
    return study


def mean_and_spread(records: Sequence[Record], key: str) -> tuple[float, float]:
    """Mean and sample standard deviation of a figure; of one trial, 0."""
    values = [float(record[key]) for record in records]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def trial_config(
    cfg: CfgNode, seed: int, folder: Path | None = None, options: Sequence[str] = ()
) -> CfgNode:
    """A trial's own copy of a configuration.

    Args:
        cfg: of all trials.
        seed: of this one.
        folder: where it runs, without W&B; None leaves both as they are.
        options: further keys and their values, in turns.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if folder is not None:
        cfg.merge_from_list(["OUTPUT_DIR", str(folder), "WANDB.ENABLED", "False"])
    cfg.merge_from_list(list(options))
    cfg.SEED = seed
    return cfg
