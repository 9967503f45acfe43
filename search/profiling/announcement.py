"""Says how long a profile will take, and how much disk, before it starts."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from backbones.inference import Program
from backbones.inference.board.turns import visit_seconds
from search.profiling.journal import Journal
from search.profiling.workload import Item

PROBES = 3
"""Items of every kind that are tried to estimate the others."""

CONVERSIONS_PER_WORKER = 4
"""Fewest conversions for which starting another worker process pays."""


@dataclass(frozen=True)
class Work:
    """What is left to do.

    Attributes:
        conversions: models to convert.
        conversion_seconds: all of them take, one after the other.
        visits: to make.
        visit_seconds: all of them take.
        disk: bytes of all converted models, those there already left out.
    """

    conversions: int
    conversion_seconds: float
    visits: int
    visit_seconds: float
    disk: float

    def __add__(self, other: Work) -> Work:
        return Work(
            self.conversions + other.conversions,
            self.conversion_seconds + other.conversion_seconds,
            self.visits + other.visits,
            self.visit_seconds + other.visit_seconds,
            self.disk + other.disk,
        )

    def __str__(self) -> str:
        visits = f"{self.visits:,} visits ({about(self.visit_seconds)})"
        if not self.conversions:
            return visits
        seconds = self.conversion_seconds / workers_for(self.conversions)
        megabytes = max(round(self.disk / 1e6), 1)
        return (
            f"{self.conversions:,} modules to convert ({about(seconds)}, {megabytes:,} MB on disk "
            f"until all is measured) and {visits}"
        )


def about(seconds: float) -> str:
    """A duration to one or two digits: ``about 40 s``, ``about 4 min``."""
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    return f"about {round(seconds / 60)} min"


def estimated_work(
    pending: Sequence[Item],
    missing: Collection[str],
    compiled: Callable[[Item], Program],
    journal: Journal,
) -> Work:
    """Tries some items of every kind, the first word of their keys, and estimates what is left.

    What is converted for that is kept, and does not count as left.

    Args:
        pending: the item of every visit to come.
        missing: keys of items without a converted model; none where nothing is converted.
        compiled: converts an item and loads it.
        journal: keeps the models.
    """
    kinds: dict[str, list[Item]] = {}
    for item in pending:
        kinds.setdefault(item.key.partition("_")[0], []).append(item)
    works = (_work_of_kind(items, missing, compiled, journal) for items in kinds.values())
    return sum(works, start=Work(0, 0.0, 0, 0.0, 0.0))


def _work_of_kind(
    pending: Sequence[Item],
    missing: Collection[str],
    compiled: Callable[[Item], Program],
    journal: Journal,
) -> Work:
    """As :func:`estimated_work`, by the medians of the items tried."""
    items = list({item.key: item for item in pending}.values())
    preparing, visiting, disk = [], [], []
    tried = items[:: -(-len(items) // PROBES)]
    for item in tried:
        start = time.perf_counter()
        program = compiled(item)
        prepared = time.perf_counter()
        session = program.load()
        visiting.append(time.perf_counter() - prepared + visit_seconds(session))
        preparing.append(prepared - start)
        if item.key in missing:
            disk.append(journal.model_path(item.key).stat().st_size)
    wanted = sum(item.key in missing for item in items)
    left = wanted - len(disk)
    building = 0 if wanted else len(items) - len(tried)
    return Work(
        left,
        left * statistics.median(preparing),
        len(pending),
        len(pending) * statistics.median(visiting) + building * statistics.median(preparing),
        wanted * statistics.median(disk) if disk else 0.0,
    )


def workers_for(conversions: int) -> int:
    """Processes that convert at a time; with one, this process converts."""
    return max(min(os.cpu_count() or 1, conversions // CONVERSIONS_PER_WORKER), 1)
