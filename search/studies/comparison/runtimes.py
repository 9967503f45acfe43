"""Runtimes side by side: only those of one table, or of one engine, stand in a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SOURCES = {
    "runtime": ("latency_table", "runtime_of", "runtime_unit"),
    "measured_runtime": ("measured_with",),
}
"""By runtime: what says where it is from."""

_TITLES = {"runtime": "predicted", "measured_runtime": "measured"}
_WAYS_OUT = {
    "runtime": "name one table for all with MODEL.SPNAS.LATENCY_TABLE",
    "measured_runtime": "measure all with one engine by --engine",
}


@dataclass(frozen=True)
class RuntimeColumn:
    """A runtime of every row, or of none where they have several sources.

    Attributes:
        header: what it is, and its unit.
        values: of the rows in their order; None where there is no figure.
        note: where the figures are from, or why there are none; empty without any.
    """

    header: str
    values: list[float | None]
    note: str


def runtime_sources(cost: Mapping[str, Any], key: str) -> tuple[str | None, ...]:
    """Where a figure of a row's ``cost`` is from; nothing for one that is no runtime."""
    return tuple(cost.get(source) for source in SOURCES.get(key, ()))


def runtime_column(rows: Sequence[Mapping[str, Any]], key: str) -> RuntimeColumn:
    """The column of one runtime, a key of ``SOURCES``."""
    title, costs = _TITLES[key], [row["cost"] for row in rows]
    known = [cost for cost in costs if cost[key] is not None]
    found = sorted({_in_words(cost, key) for cost in known})
    if len({runtime_sources(cost, key) for cost in known}) > 1:
        note = (
            f"{title.capitalize()} runtimes are left out, for they do not compare: they are of "
            f"{'; '.join(found)}. To have them, {_WAYS_OUT[key]}."
        )
        return RuntimeColumn(f"{title}, of several sources", [None] * len(costs), note)
    unit = known[0]["runtime_unit"] if known and key == "runtime" else "ms"
    note = f"{title.capitalize()}: {found[0]}." if found and found[0] else ""
    return RuntimeColumn(f"{title} ({unit})", [cost[key] for cost in costs], note)


def runtime_columns(rows: Sequence[Mapping[str, Any]]) -> list[RuntimeColumn]:
    """The predicted and the measured runtime."""
    return [runtime_column(rows, key) for key in SOURCES]


def _in_words(cost: Mapping[str, Any], key: str) -> str:
    return ", ".join(source for source in runtime_sources(cost, key) if source)
