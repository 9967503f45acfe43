"""Measures many items in turns, resumably."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence

import torch
from tqdm import tqdm

from backbones.engines import Engine, Program
from backbones.engines.measurement import NOISY, Measurement, visit
from search.profiling.journal import Journal
from search.profiling.workload import Item

logger = logging.getLogger(__name__)


def measure(
    items: Sequence[Item], engine: Engine, journal: Journal, rounds: int
) -> dict[str, Measurement]:
    """Visits every item once a round, in a new order each time.

    The first round also converts what is not converted yet. Visits that the journal has are not
    made again.

    Args:
        items: what to measure.
        engine: with what.
        journal: keeps every visit.
        rounds: visits to every item.

    Returns:
        The measurement of every item, by key.
    """
    keys = [item.key for item in items]
    pending = [
        (round_, item)
        for round_ in range(rounds)
        for item in random.Random(round_).sample(list(items), len(items))
        if round_ not in journal.visits[item.key]
    ]
    programs: dict[str, Program] = {}
    with tqdm(pending, desc=f"{engine.title} on {engine.device}", unit="visit") as progress:
        for round_, item in progress:
            if item.key not in programs:
                torch.manual_seed(0)
                path = journal.model_path(item.key)
                programs[item.key] = engine.compile(item.build, item.inputs(), path)
            journal.add(item.key, round_, visit(programs[item.key].load()))
    return {
        key: Measurement.of([journal.visits[key][round_] for round_ in range(rounds)])
        for key in keys
    }


def report_noise(measurements: Mapping[str, Measurement]) -> float:
    """Logs how well the figures repeat, as a warning where they should not be trusted.

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
