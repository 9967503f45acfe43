"""Measures many items in interleaved rounds; resumable."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from backbones.inference import Engine, Program, make_engine
from backbones.inference.measurement import NOISY, Measurement, visit
from search.profiling.journal import Journal, Visit
from search.profiling.pace import EVERY, at_one_pace
from search.profiling.workload import Item
from search.workers import in_processes

logger = logging.getLogger(__name__)

CONVERSIONS_PER_WORKER = 4
"""Fewest conversions for which starting another worker process pays."""


def measure(
    items: Sequence[Item], reference: Item, engine: Engine, journal: Journal, rounds: int
) -> dict[str, Measurement]:
    """Visits every item once per round, in a new order each time, with the reference in between.

    Models are converted first, with nothing measured beside it. Visits that the journal has are
    not made again.

    Args:
        items: what to measure.
        reference: tells the pace of the machine (:mod:`search.profiling.pace`).
        engine: with what.
        journal: keeps every visit.
        rounds: visits to every item.

    Returns:
        The measurement of every item, by key, all at one pace.
    """
    made = {(visit.key, visit.round) for visit in journal.visits}
    pending = [
        (round_, item)
        for round_, item in _plan(items, reference, rounds)
        if (item.key, round_) not in made
    ]
    _convert_missing([item for _, item in pending], engine, journal)
    programs: dict[str, Program] = {}
    with tqdm(pending, desc=f"{engine.title} on {engine.device}", unit="visit") as progress:
        for round_, item in progress:
            if item.key not in programs:
                path = journal.model_path(item.key)
                programs[item.key] = _compile(engine, item, path)
            journal.add(Visit(item.key, round_, visit(programs[item.key].load())))
    return at_one_pace(journal.visits, reference.key)


def _plan(items: Sequence[Item], reference: Item, rounds: int) -> Iterator[tuple[int, Item]]:
    """All visits in order, as (round, item); visits to the reference count rounds of their own."""
    made = 0
    for round_ in range(rounds):
        for item in random.Random(round_).sample(list(items), len(items)):
            if made % EVERY == 0:
                yield made // EVERY, reference
            made += 1
            yield round_, item


def _convert_missing(items: Sequence[Item], engine: Engine, journal: Journal) -> None:
    """Converts the items that have no model file yet, in parallel processes."""
    missing = {
        item.key: item
        for item in items
        if engine.converts and not journal.model_path(item.key).exists()
    }
    workers = min(os.cpu_count() or 1, len(missing) // CONVERSIONS_PER_WORKER)
    if workers < 2:
        return
    setting = (engine.name, engine.device, engine.threads)
    arguments = [(setting, item, journal.model_path(key)) for key, item in missing.items()]
    done = in_processes(_convert, arguments, workers)
    for _ in tqdm(done, "Converting", len(arguments), unit="model"):
        pass


def _convert(setting: tuple[str, str, int], item: Item, path: Path) -> None:
    _compile(make_engine(*setting), item, path)


def _compile(engine: Engine, item: Item, path: Path) -> Program:
    torch.manual_seed(0)
    return engine.compile(item.build, item.inputs(), path)


def report_noise(measurements: Mapping[str, Measurement]) -> float:
    """Logs the spread of repeated measurements, as a warning where it is too large.

    Returns:
        The median spread.
    """
    spreads = sorted(measurement.spread for measurement in measurements.values())
    middle = spreads[len(spreads) // 2]
    noisy = [key for key, found in measurements.items() if found.spread > NOISY]
    logger.info(
        "The figures repeat to ±%.1f %% (median), ±%.1f %% (worst)", 100 * middle, 100 * spreads[-1]
    )
    if middle > NOISY or len(noisy) > len(spreads) / 10:
        logger.warning(
            "This machine is too noisy to trust the figures: %d of %d repeat worse than ±%.0f %% "
            "(%s). Stop what else runs here, or raise --rounds, and measure again.",
            len(noisy),
            len(spreads),
            100 * NOISY,
            ", ".join(noisy[:3]),
        )
    return middle
