"""Says how long a profile will take, and how much disk, before it starts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backbones.inference import Program
from backbones.inference.measurement import visit_seconds
from search.profiling.journal import Journal
from search.profiling.workload import Item

PROBES = 6
"""Items that are tried to estimate the rest."""

CONVERSIONS_PER_WORKER = 4
"""Fewest conversions for which starting another worker process pays."""


@dataclass(frozen=True)
class Work:
    """What is left to do.

    Attributes:
        conversions: models to convert.
        conversion_seconds: all of them take, on all cores.
        visits: to make.
        visit_seconds: all of them take.
        disk: bytes of all converted models.
    """

    conversions: int
    conversion_seconds: float
    visits: int
    visit_seconds: float
    disk: float

    def __str__(self) -> str:
        visits = f"{self.visits:,} visits ({about(self.visit_seconds)})"
        if not self.conversions:
            return visits
        megabytes = max(round(self.disk / 1e6), 1)
        return (
            f"{self.conversions:,} modules to convert ({about(self.conversion_seconds)}, "
            f"{megabytes:,} MB on disk until all is measured) and {visits}"
        )


def about(seconds: float) -> str:
    """A duration to one or two digits: ``about 40 s``, ``about 4 min``."""
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    return f"about {round(seconds / 60)} min"


def estimated_work(
    pending: Sequence[Item],
    missing: Sequence[Item],
    compiled: Callable[[Item], Program],
    journal: Journal,
) -> Work:
    """Tries a few items, spread over all, and estimates from them what is left.

    What is converted for that is kept, and does not count as left.

    Args:
        pending: the item of every visit to come.
        missing: items without a converted model; none where the engine converts nothing.
        compiled: converts and loads an item.
        journal: keeps the models.
    """
    distinct = list({item.key: item for item in pending}.values())
    distinct.sort(key=lambda item: item.key)
    tried = distinct[:: max(len(distinct) // PROBES, 1)]
    waiting = {item.key for item in missing}
    preparing, visiting, disk = [], [], []
    for item in tried:
        start = time.perf_counter()
        program = compiled(item)
        prepared = time.perf_counter()
        session = program.load()
        visiting.append(time.perf_counter() - prepared + visit_seconds(session))
        preparing.append(prepared - start)
        if item.key in waiting:
            disk.append(journal.model_path(item.key).stat().st_size)
    left = len(waiting) - len(disk)
    each = _mean(preparing[1:] or preparing)  # the first one imports the converter
    built = 0 if waiting else len(distinct)
    return Work(
        left,
        left * each / workers_for(left),
        len(pending),
        len(pending) * _mean(visiting) + built * each,
        len(waiting) * _mean(disk),
    )


def workers_for(conversions: int) -> int:
    """Processes that convert at a time; with one, this process converts."""
    return max(min(os.cpu_count() or 1, conversions // CONVERSIONS_PER_WORKER), 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
