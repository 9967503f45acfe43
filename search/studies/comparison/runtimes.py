"""Runtimes side by side: only those of one table, or of one engine, stand in a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detection.report import named_figure

RUNTIMES = {
    "runtime": ("latency_table", "runtime_of", "runtime_unit"),
    "measured_runtime": ("measured_with",),
}
"""What says where a runtime is from. Figures of several sources stand in no column together."""


def runtime_sources(cost: Mapping[str, Any], key: str) -> tuple[str | None, ...]:
    """Where a figure of a row's ``cost`` is from; nothing for one that is no runtime."""
    return tuple(cost.get(source) for source in RUNTIMES.get(key, ()))


def runtime_column(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[str, list[float | None]]:
    """A runtime of every row, or of none where they have several sources, and its header."""
    costs = [row["cost"] for row in rows]
    sources = {runtime_sources(cost, key) for cost in costs if cost[key] is not None}
    if len(sources) > 1:
        names = {"runtime": "predicted", "measured_runtime": "measured"}
        return f"{names[key]}, of several sources", [None] * len(costs)
    values = [cost[key] for cost in costs]
    if key == "measured_runtime":
        return named_figure("measured (ms)", *(sources.pop() if sources else ())), values
    *what, unit = sources.pop() if sources else (None, "ms")
    return named_figure(f"predicted ({unit})", *what), values


def runtime_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why runtimes are left out, where they are from several tables or engines."""
    kinds = {
        "runtime": ("Predicted", "name one table for all with MODEL.SPNAS.LATENCY_TABLE"),
        "measured_runtime": ("Measured", "measure all with one engine by --engine"),
    }
    notes = []
    for key, (kind, way_out) in kinds.items():
        costs = [row["cost"] for row in rows if row["cost"][key] is not None]
        sources = sorted({", ".join(map(str, runtime_sources(cost, key))) for cost in costs})
        if len(sources) > 1:
            notes.append(
                f"{kind} runtimes are left out, for they do not compare: they are of "
                f"{'; '.join(sources)}. To have them, {way_out}."
            )
    return notes
