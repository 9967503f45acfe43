"""Evaluates a latency table: predicted against measured runtime of whole networks (Fig. 4)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from tabulate import tabulate

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.files import write_json
from backbones.inference import ENGINES, Engine, make_engine
from backbones.inference.hardware import device_name
from backbones.inference.measurement import Measurement
from backbones.latency import LatencyTable, predict_runtime
from backbones.precisions import PRECISIONS, short_name
from detection.deployment import Deployment
from detection.engine.provenance import provenance
from search.profiling.journal import Journal
from search.profiling.measuring import measure, report_noise
from search.profiling.pace import anchor_items, drift, reference_item
from search.profiling.plots import plot_evaluation
from search.profiling.workload import network_item, random_networks, uses_se
from search.selection.runtime import runtime_entries
from search.space import SearchSpace

logger = logging.getLogger(__name__)

SEED = 2
"""Seed of the random networks that tables are evaluated on."""


@dataclass(frozen=True)
class Conditions:
    """Conditions under which the evaluation networks were measured.

    Attributes:
        versions: of the engine, by package.
        seed: of the random networks.
        rounds: visits to each.
        noise: median spread of all measurements; None where each was made once.
        warning: why they are not to be trusted; empty where nothing is known against them.
        drift: how much slower the machine was than when the table was made.
    """

    versions: Mapping[str, str]
    seed: int
    rounds: int
    noise: float | None
    warning: str = ""
    drift: float = 1.0


def table_engine(table: LatencyTable) -> Engine:
    """The engine that a table was made with, in its precision on the same device of this machine.

    Raises:
        UserError: if it is another device, or the engine is none of ours, not installed, or has
            not the table's precision.
    """
    if table.engine not in ENGINES:
        raise UserError(
            f"latency table '{table.name}' was measured with {table.engine} on a {table.device}; "
            f"only tables made with {', '.join(ENGINES)} can be measured again here"
        )
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    here = {device_name(device): device for device in devices}
    if table.device not in here:
        raise UserError(
            f"latency table '{table.name}' was measured on '{table.device}'; this machine is "
            f"'{', '.join(here)}': profile it with tools/profile_latency.py"
        )
    precision = short_name(table.precision)
    if precision not in PRECISIONS:
        raise UserError(
            f"latency table '{table.name}' was measured in {table.precision}; only tables in "
            f"{', '.join(PRECISIONS.values())} can be measured again here"
        )
    return make_engine(table.engine, here[table.device], table.threads or 1, precision)


def evaluate_table(
    table: LatencyTable,
    space: SearchSpace,
    output: Path,
    networks: int = 100,
    seed: int = SEED,
    rounds: int = 16,
) -> dict[str, Any]:
    """Draws random networks, predicts them, measures them whole, and writes the comparison.

    Networks that the table's correction was fitted on are left out; some of them tell how much
    slower or faster the machine is than it was. What is measured is kept beside ``output`` until
    that is written, so that an interruption loses nothing.

    Args:
        table: made on this machine.
        space: the search space to draw from.
        output: the JSON file; the plot is put beside it as PNG.
        networks: how many; every other one without SE.
        seed: of the draw.
        rounds: visits to every network.

    Returns:
        What was written: the setting, ``scores``, ``networks`` and ``se_factors``.

    Raises:
        UserError: if the table does not cover the space, or was not made on this machine.
    """
    runtime_entries(space, table)  # refuses a table that does not cover the space
    engine = table_engine(table)
    deployment = Deployment.of(table)
    fitted = table.correction.networks if table.correction else {}
    drawn = random_networks(space, networks, seed, exclude=list(fitted))
    setting = {"table": table.to_dict(), "seed": seed, "rounds": rounds}
    journal = Journal(output.with_suffix(".partial"), setting)
    items = {types: network_item(network, deployment) for types, network in drawn.items()}
    anchors = anchor_items(space, table, deployment)
    measured = [*items.values(), *anchors.values()]
    found = measure(measured, reference_item(deployment), engine, journal, rounds)
    noise = report_noise(found, rounds)
    slower = drift(table, anchors, found)
    logger.info("The machine is %.3f × as slow as when the table was made", slower)
    by_types = {types: found[item.key] for types, item in items.items()}
    how = Conditions(engine.versions(), seed, rounds, noise.median, noise.warning, slower)
    report = write_evaluation(table, space, drawn, by_types, how, output)
    journal.remove()
    return report


def write_evaluation(
    table: LatencyTable,
    space: SearchSpace,
    networks: Mapping[str, Architecture],
    measured: Mapping[str, Measurement],
    how: Conditions,
    output: Path,
) -> dict[str, Any]:
    """Compares what a table predicts with what was measured, and writes it with its plot.

    Args:
        table: on trial.
        space: that it is for.
        networks: none of which the table's correction was fitted on, by the types of their layers.
        measured: runtime of each.
        how: they were measured.
        output: the JSON file; the plot is put beside it as PNG.

    Returns:
        What was written: the setting, ``scores``, ``networks`` and ``se_factors``.
    """
    plain = dataclasses.replace(table, correction=None)
    rows = [
        {
            "layers": types,
            "measured": round(measured[types].runtime, 4),
            "spread": round(measured[types].spread, 4),
            "predicted": round(predict_runtime(network, table), 4),
            "plain_sum": round(predict_runtime(network, plain), 4),
        }
        for types, network in networks.items()
    ]
    report = {
        **provenance(threads=table.threads),
        "table": table.name,
        "table_source": table.source,
        "table_warning": table.warning,
        "correction_refused": table.correction_refused,
        "device": table.device,
        "engine": table.engine,
        "threads": table.threads,
        "precision": table.precision,
        "task": table.task,
        "input_size": list(table.input_size),
        "space": space.name,
        **dataclasses.asdict(how),
        "scores": scores_by_group(rows, how.drift),
        "se_factors": se_factors(runtime_entries(space, table).numpy(), space),
        "networks": rows,
    }
    write_json(output, report)
    plot_evaluation(report, output.with_suffix(".png"))
    return report


def scores_by_group(
    rows: Sequence[Mapping[str, Any]], drift: float
) -> dict[str, dict[str, float | None]]:
    """:func:`scores` of all networks, of those with and without SE, and of the plain sum.

    Args:
        rows: measured and predicted runtimes.
        drift: how much slower the machine is than when the table was made. All groups but "as
            measured" are judged at the table's speed.
    """
    then = [{**row, "measured": row["measured"] / drift} for row in rows]
    with_se = [row for row in then if uses_se(row["layers"])]
    without = [row for row in then if not uses_se(row["layers"])]
    groups = {"all": then, "with SE": with_se, "without SE": without, "as measured": rows}
    found = {name: scores(group, "predicted") for name, group in groups.items() if len(group) > 1}
    return {**found, "plain sum": scores(then, "plain_sum")}


def scores(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, float | None]:
    """RMSE (ms), mean and largest absolute error (%), bias (%) and Spearman's ρ of ``key``.

    ρ is None where it is undefined: a table profiled in a hurry can predict one runtime for all.
    """
    predicted = np.array([row[key] for row in rows])
    measured = np.array([row["measured"] for row in rows])
    relative = 100 * (predicted / measured - 1)
    ranked = np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return {
        "networks": len(rows),
        "rmse": float(np.sqrt(np.mean((predicted - measured) ** 2))),
        "mean_error": float(np.mean(np.abs(relative))),
        "largest_error": float(np.max(np.abs(relative))),
        "bias": float(np.mean(relative)),
        "spearman": float(spearmanr(predicted, measured)[0]) if ranked else None,
    }


def scores_table(found: Mapping[str, Mapping[str, float | None]]) -> str:
    """What :func:`scores_by_group` returned, as a text table."""
    rows = [[name, *group.values()] for name, group in found.items()]
    headers = ["", *next(iter(found.values()))]
    return tabulate(rows, headers, tablefmt="github", floatfmt=".3f")


def se_factors(entries: np.ndarray, space: SearchSpace) -> dict[str, list[list[float]]]:
    """The SE scaling factors of Eq. 14, by ratio: for every layer the smallest, mean and largest.

    A table profiled in a hurry can have a candidate at 0, which SE scales by no factor: that is 1.

    Args:
        entries: (L, K, E, S) runtimes.
        space: the search space.
    """
    found: dict[str, list[list[float]]] = {}
    for index, ratio in enumerate(space.se_ratios):
        if ratio:
            plain = entries[..., 0]
            factors = np.divide(
                entries[..., index], plain, out=np.ones_like(plain), where=plain > 0
            ).reshape(len(entries), -1)
            columns = (factors.min(1), factors.mean(1), factors.max(1))
            found[f"{ratio:g}"] = np.stack(columns, 1).round(4).tolist()
    return found
