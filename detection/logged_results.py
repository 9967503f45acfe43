"""The final figures of a detector in W&B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detection.engine.wandb_writer import WandbWriter
from detection.report import TASK_NAMES, final_rows

_SCALES = {"AP": "all", "APs": "small", "APm": "medium", "APl": "large"}


def log_results(results: Mapping[str, Any], wandb: WandbWriter) -> None:
    """Sends the final table, AP by object scale as a table, and all figures as the run's summary.

    Args:
        results: of :func:`detection.report.final_results`.
        wandb: the writer of the run.
    """
    wandb.log_table("ap_by_scale", *scale_rows(results))
    wandb.log_table("final_table", *final_rows(results))
    flat = {
        f"final/{dataset}/{task}/{metric}": value
        for dataset, tasks in results["scores"].items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    }
    costs = {k: v for k, v in results["cost"].items() if isinstance(v, int | float)}
    wandb.log_summary({**flat, **{f"final/{name}": value for name, value in costs.items()}})


def scale_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Headers and rows of AP by object scale: a row for every data set, task and scale."""
    rows = [
        [dataset, TASK_NAMES.get(task, task), scale, found[metric]]
        for dataset, scores in results["scores"].items()
        for task, found in scores.items()
        for metric, scale in _SCALES.items()
        if metric in found
    ]
    return ["data set", "AP of", "scale", "AP"], rows
