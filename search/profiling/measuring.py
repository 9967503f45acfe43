"""Measures many items in interleaved rounds; resumable."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from backbones.errors import UserError
from backbones.inference import Engine, Program, make_engine
from backbones.inference.board.turns import in_turns, visit_and_share
from backbones.inference.measurement import NOISY, Measurement, taken_by_others
from search.profiling.announcement import estimated_work, workers_for
from search.profiling.journal import Journal, Visit
from search.profiling.pace import EVERY, at_one_pace
from search.profiling.workload import Item
from search.workers import in_processes

logger = logging.getLogger(__name__)

FEW_ROUNDS = 5
"""Visits to everything below which a median and a spread are rough."""


def measure(
    items: Sequence[Item], reference: Item, engine: Engine, journal: Journal, rounds: int
) -> dict[str, Measurement]:
    """Visits every item once per round, in a new order each time, with the reference in between.

    How long it will take is said first. Models are then converted, with nothing measured beside
    it, and deleted once all is measured. Visits that the journal has are not made again.

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
    by_key = {item.key: item for item in (*items, reference)}
    turns = in_turns([item.key for item in items], reference.key, rounds, EVERY)
    pending = [(round_, by_key[key]) for round_, key in turns if (key, round_) not in made]
    try:
        _visit_all(pending, engine, journal)
    except UserError:
        if not journal.visits:
            journal.remove()
        raise
    journal.remove_models()
    return at_one_pace(journal.visits, reference.key)


def _visit_all(pending: Sequence[tuple[int, Item]], engine: Engine, journal: Journal) -> None:
    """Announces, converts and makes the visits that are left."""
    programs: dict[str, Program] = {}

    def compiled(item: Item) -> Program:
        if item.key not in programs:
            programs[item.key] = _compile(engine, item, journal.model_path(item.key))
        return programs[item.key]

    items = [item for _, item in pending]
    missing = without_model(items, engine, journal)
    if pending:
        keys = {item.key for item in missing}
        work = estimated_work(items, keys, compiled, journal)
        how = "" if engine.precision == "fp32" else f" in {engine.precision}"
        logger.info("%s on %s%s: %s", engine.title, engine.device, how, work)
    missing = without_model(missing, engine, journal)
    if workers_for(len(missing)) > 1:  # few are converted when they are visited
        convert(missing, engine, journal)
    with tqdm(pending, desc=f"{engine.title} on {engine.device}", unit="visit") as progress:
        for round_, item in progress:
            found = visit_and_share(compiled(item).load(), engine.device)
            journal.add(Visit(item.key, round_, *found))


def without_model(items: Sequence[Item], engine: Engine, journal: Journal) -> list[Item]:
    """The items, each once, that have no model file yet."""
    distinct = {item.key: item for item in items if engine.converts}
    return [item for key, item in distinct.items() if not journal.model_path(key).exists()]


def convert(items: Sequence[Item], engine: Engine, journal: Journal) -> None:
    """Makes the model files of items: of many in several processes."""
    workers = workers_for(len(items))
    if workers < 2:
        for item in tqdm(items, "Converting", unit="model"):
            _compile(engine, item, journal.model_path(item.key))
        return
    setting = (engine.name, engine.device, engine.threads, engine.precision)
    arguments = [(setting, item, journal.model_path(item.key)) for item in items]
    done = in_processes(_convert_one, arguments, workers)
    for _ in tqdm(done, "Converting", len(arguments), unit="model"):
        pass


def _convert_one(setting: tuple[str, str, int, str], item: Item, path: Path) -> None:
    _compile(make_engine(*setting), item, path)


def _compile(engine: Engine, item: Item, path: Path) -> Program:
    torch.manual_seed(0)
    return engine.compile(item.build, item.inputs(), path, item.place)


@dataclass(frozen=True)
class Noise:
    """How well figures repeat, and whether that is good enough.

    Attributes:
        median: spread of the measurements; None where each was made once.
        warning: why they are not to be trusted; empty where nothing is known against them.
    """

    median: float | None
    warning: str


def report_noise(measurements: Mapping[str, Measurement], rounds: int) -> Noise:
    """The verdict on measurements, logged as well.

    Args:
        measurements: by key.
        rounds: visits to each.
    """
    spreads = sorted(measurement.spread for measurement in measurements.values())
    middle = spreads[len(spreads) // 2]
    noisy = [key for key, found in measurements.items() if found.spread > NOISY]
    found = []
    if rounds < FEW_ROUNDS:
        times = "round" if rounds == 1 else "rounds"
        found.append(f"rough, as it was measured in {rounds} {times}")
    if rounds > 1:
        logger.info(
            "The figures repeat to ±%.1f %% (median), ±%.1f %% (worst)",
            100 * middle,
            100 * spreads[-1],
        )
    if middle > NOISY or len(noisy) > len(spreads) / 10:
        found.append(
            f"too noisy to trust, as {len(noisy)} of {len(spreads)} figures repeat worse than "
            f"±{100 * NOISY:g} %"
        )
    share = statistics.median(measurement.share for measurement in measurements.values())
    if others := taken_by_others(share):
        found.append(f"longer than on a quiet machine, as {others}")
    if found:
        logger.warning(
            "What was measured here is %s. Stop what else runs on this machine, or raise --rounds, "
            "and measure again.",
            "; ".join(found),
        )
    return Noise(middle if rounds > 1 else None, "; ".join(found))
