"""How the order of networks and the costs of options differ between two precisions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from backbones.errors import UserError
from backbones.latency import LatencyTable
from backbones.precisions import short_name
from search.selection.runtime import runtime_entries
from search.space import SearchSpace
from search.studies.precisions.found import measured_runtimes, paired_searches, search_rows


def check_tables(tables: Sequence[LatencyTable]) -> None:
    """Insists on two tables that differ in their precision alone.

    Raises:
        UserError: naming what is the same, or what differs.
    """
    first, second = tables
    if first.precision == second.precision:
        raise UserError(
            f"latency tables '{first.name}' and '{second.name}' are both in "
            f"{short_name(first.precision)}; name tables of two precisions"
        )
    for what in ("device", "engine", "threads", "task", "input_size", "unit"):
        if getattr(first, what) != getattr(second, what):
            raise UserError(
                f"latency tables '{first.name}' and '{second.name}' differ in {what} "
                f"({getattr(first, what)} and {getattr(second, what)}); profile both alike, but "
                "for --precision"
            )


def precision_study(
    tables: Sequence[LatencyTable],
    evaluations: Sequence[Mapping[str, Any]],
    space: SearchSpace,
    folders: Sequence[Path],
    rounds: int,
    partial: Path,
) -> dict[str, Any]:
    """Sets runtimes in two precisions side by side, and measures what searches found in both.

    Args:
        tables: two, which differ in their precision alone; of this machine where ``folders`` has
            searches.
        evaluations: of both: the random networks measured for them, which are the same.
        space: that they cover.
        folders: of searches: for every seed one on each table.
        rounds: visits to each network that is measured.
        partial: keeps what is measured until both precisions are.

    Returns:
        ``tables``, ``engine`` and ``device``; ``networks``, every one with its layers and its
        runtimes (ms) by precision; ``rank``, Spearman's ρ between the precisions; ``ratio``;
        ``costs`` of options; and ``searches``.

    Raises:
        UserError: if the tables differ otherwise, the evaluations are of other tables or networks,
            or a seed lacks a search.
    """
    check_tables(tables)
    rows = evaluated_networks(tables, evaluations)
    found = paired_searches(folders, tables, space)
    measured = {
        short_name(table.precision): measured_runtimes(found, table, rounds, partial)
        for table in (tables if found else ())
    }
    return {
        "tables": {short_name(table.precision): table.name for table in tables},
        "engine": tables[0].engine,
        "device": tables[0].device,
        "rank": {how: rank(rows, how) for how in ("measured", "predicted")},
        "ratio": ratio(rows),
        "costs": {short_name(table.precision): option_costs(space, table) for table in tables},
        "searches": search_rows(found, measured, tables),
        "networks": rows,
    }


def evaluated_networks(
    tables: Sequence[LatencyTable], evaluations: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The networks that two evaluations share: their layers, and runtimes by precision in ms.

    Measured runtimes are at the pace that the machine had when the table was made.

    Raises:
        UserError: if an evaluation is of another table, or they share fewer than two networks.
    """
    by_layers: list[dict[str, Mapping[str, Any]]] = []
    for table, report in zip(tables, evaluations, strict=True):
        if report["table"] != table.name:
            raise UserError(
                f"an evaluation is of latency table '{report['table']}'; expected one of "
                f"'{table.name}', in the order of --tables"
            )
        by_layers.append({row["layers"]: row for row in report["networks"]})
    shared = [layers for layers in by_layers[0] if layers in by_layers[1]]
    if len(shared) < 2:
        raise UserError(
            f"the evaluations of '{tables[0].name}' and '{tables[1].name}' share {len(shared)} "
            "networks; evaluate both with the same --seed on networks of one space"
        )
    names = [short_name(table.precision) for table in tables]
    paces = [report["drift"] for report in evaluations]
    return [
        {
            "layers": layers,
            "measured": {
                name: round(rows[layers]["measured"] / pace, 4)
                for name, rows, pace in zip(names, by_layers, paces, strict=True)
            },
            "predicted": {
                name: rows[layers]["predicted"] for name, rows in zip(names, by_layers, strict=True)
            },
        }
        for layers in shared
    ]


def rank(rows: Sequence[Mapping[str, Any]], how: str) -> float:
    """Spearman's ρ of ``measured`` or ``predicted`` runtimes between the two precisions."""
    first, second = zip(*(row[how].values() for row in rows), strict=True)
    return round(float(spearmanr(first, second)[0]), 4)


def ratio(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Smallest, median and largest runtime in the second precision over that in the first."""
    ratios = [second / first for first, second in (row["measured"].values() for row in rows)]
    return np.quantile(ratios, [0, 0.5, 1]).round(4).tolist()


def option_costs(space: SearchSpace, table: LatencyTable) -> dict[str, float]:
    """Runtime with an option over runtime with the first one of its axis, over all layers.

    Both are sums over all candidates that differ in this option alone, so large layers count more;
    as measured layer by layer, since a correction adds to every layer what its fit found.

    Returns:
        By the option: ``kernel 5``, ``expansion 6``, ``SE 0.25``.
    """
    entries = runtime_entries(space, dataclasses.replace(table, correction=None)).numpy()
    axes = {
        "kernel": (1, space.kernel_sizes),
        "expansion": (2, space.expansions),
        "SE": (3, space.se_ratios),
    }
    found = {}
    for name, (axis, options) in axes.items():
        sums = entries.sum(tuple(other for other in range(4) if other != axis))
        for option, total in zip(options[1:], sums[1:], strict=True):
            found[f"{name} {option:g}"] = round(float(total / sums[0]), 4)
    return found
