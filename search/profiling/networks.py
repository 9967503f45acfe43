"""Measures named networks directly, without a table."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.inference import Engine
from backbones.latency import LatencyTable
from backbones.precisions import PRECISIONS, short_name
from backbones.scratch import scratch_folder
from detection.deployment import Deployment, predicted_runtime
from search.profiling.journal import Journal
from search.profiling.measuring import measure, report_noise
from search.profiling.pace import anchor_items, drift, reference_item
from search.profiling.setting import MeasuredWith
from search.profiling.workload import network_item
from search.space import SearchSpace

logger = logging.getLogger(__name__)


def measure_architectures(
    architectures: Sequence[Architecture],
    engine: Engine,
    deployment: Deployment,
    rounds: int = 16,
    table: LatencyTable | None = None,
    space: SearchSpace | None = None,
) -> list[dict[str, Any]]:
    """Runtime of whole networks, measured in turns.

    Args:
        architectures: of any space or none.
        engine: runs them.
        deployment: what each is part of.
        rounds: visits to each.
        table: to predict them with as well; made for the same deployment.
        space: that the table is for; needed to tell how the machine's pace has changed since.

    Returns:
        For every network ``architecture``, ``measured`` and ``spread``; with a table also
        ``predicted`` (None where it does not cover the network) and ``error`` in percent; with a
        corrected table of this machine and its space also ``error_then``, at the pace that the
        machine had when the table was made.

    Raises:
        UserError: if the table was made for another task, image size, precision or space.
    """
    made_for = (deployment.task, deployment.padded_size)
    if table and made_for != (table.task, table.input_size):
        height, width = table.input_size
        raise UserError(
            f"latency table '{table.name}' is for {table.task} at {height}×{width}; measure with "
            f"--task {table.task} --input-size {height}x{width}, or take another table"
        )
    items = [
        network_item(architecture, deployment, f"network_{index}")
        for index, architecture in enumerate(architectures)
    ]
    if table and table.precision != PRECISIONS[engine.precision]:
        raise UserError(
            f"latency table '{table.name}' is in {table.precision}, and --precision is "
            f"{engine.precision}; measure with --precision {short_name(table.precision)}, or take "
            "another table"
        )
    other = MeasuredWith.here(engine, rounds, 0.0).unlike(table) if table else ""
    if table and other:
        logger.warning("What table '%s' predicts is compared with what was %s", table.name, other)
    anchors = anchor_items(space, table, deployment) if table and space and not other else {}
    with scratch_folder("profile") as folder:
        journal = Journal(folder / "profile", {})
        measured = [*items, *anchors.values()]
        found = measure(measured, reference_item(deployment), engine, journal, rounds)
    report_noise(found, rounds)
    slower = drift(table, anchors, found) if table and anchors else None
    rows: list[dict[str, Any]] = []
    for item, architecture in zip(items, architectures, strict=True):
        runtime = found[item.key].runtime
        row = {
            "architecture": architecture.name,
            "measured": runtime,
            "spread": found[item.key].spread,
        }
        if table:
            row["predicted"] = predicted = predicted_runtime(architecture, table)
            row["error"] = 100 * (predicted / runtime - 1) if predicted else None
            if slower:
                row["error_then"] = 100 * (predicted * slower / runtime - 1) if predicted else None
        rows.append(row)
    return rows


def networks_table(rows: Sequence[dict[str, Any]]) -> str:
    """What :func:`measure_architectures` returned, as a text table."""
    titles = {
        "architecture": "architecture",
        "measured": "measured (ms)",
        "spread": "spread (%)",
        "predicted": "predicted (ms)",
        "error": "error (%)",
        "error_then": "at the table's pace (%)",
    }
    keys = list(rows[0])
    cells = [[100 * row[key] if key == "spread" else row[key] for key in keys] for row in rows]
    headers = [titles[key] for key in keys]
    return tabulate(cells, headers, tablefmt="github", floatfmt=".2f", missingval="not covered")


def operators_table(architecture: Architecture, engine: Engine, deployment: Deployment) -> str:
    """Runtime by kind of operation, as the engine's own profiler reports it.

    Raises:
        UserError: if the engine has no profiler.
    """
    item = network_item(architecture, deployment)
    operators = engine.compile(item.build, item.inputs()).operators()
    kinds: dict[str, list[float]] = defaultdict(list)
    for operator in operators:
        kinds[operator.kind].append(operator.runtime)
    total = sum(operator.runtime for operator in operators)
    rows = [
        [kind, len(runtimes), sum(runtimes), 100 * sum(runtimes) / total]
        for kind, runtimes in sorted(kinds.items(), key=lambda pair: -sum(pair[1]))
    ]
    headers = ["operation", "count", "ms", "%"]
    return tabulate(rows, headers, tablefmt="github", floatfmt=("", "", ".3f", ".1f"))
