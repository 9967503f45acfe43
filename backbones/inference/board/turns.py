"""The protocol: short visits to all models in turns, written down one by one."""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

VISIT_MILLISECONDS = 30.0
FEWEST, MOST = 2, 50


class Timed(Protocol):
    """What can be visited."""

    def times(self, count: int) -> list[float]:
        """Ms of ``count`` inferences, one by one."""


def visit(session: Timed) -> float:
    """Runtime of one inference in ms: the median over one short visit to the session.

    Visits to different networks are made in turns, so that all of them meet the same
    disturbances, and the caches and the clock of the processor as the others left them. After one
    inference that warms up, a visit times ``VISIT_MILLISECONDS`` of them, ``FEWEST`` however long
    they take and ``MOST`` however short they are.
    """
    session.times(1)  # packs weights, fills caches
    (first,) = session.times(1)
    return statistics.median([first, *session.times(_inferences(first) - 1)])


def visit_and_share(session: Timed, device: str = "cpu") -> tuple[float, float]:
    """As :func:`visit`, and the part of a core that this process had meanwhile.

    A process that computes all the time has 1 of it, and more with several threads. What is below
    that was others' time, which makes a runtime longer and repeats well where the others stay. On
    another device than the CPU a process waits, and the part is not known: 1.
    """
    wall, own = time.perf_counter(), time.process_time()
    runtime = visit(session)
    own, wall = time.process_time() - own, time.perf_counter() - wall
    known = device == "cpu" and 1e3 * wall > VISIT_MILLISECONDS / 2  # else too short
    return runtime, own / wall if known else 1.0


def visit_seconds(session: Timed) -> float:
    """How long a visit takes, by two inferences."""
    _, runtime = session.times(2)
    return (1 + _inferences(runtime)) * runtime / 1e3


def _inferences(runtime: float) -> int:
    return min(max(round(VISIT_MILLISECONDS / runtime), FEWEST), MOST)


def wall_clock(run: Callable[[], object], count: int) -> list[float]:
    """Wall-clock ms of ``count`` calls, one by one."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - start))
    return found


def in_turns(
    keys: Sequence[str], reference: str, rounds: int, every: int
) -> Iterator[tuple[int, str]]:
    """All visits in order, as (round, key); visits to the reference count rounds of their own.

    Args:
        keys: what is measured: all of it once per round, in a new order each time.
        reference: what is visited in between, and tells the pace of the machine.
        rounds: visits to each.
        every: visits between two to the reference.
    """
    made = 0
    for round_ in range(rounds):
        for key in random.Random(round_).sample(list(keys), len(keys)):
            if made % every == 0:
                yield made // every, reference
            made += 1
            yield round_, key


def read_visits(path: Path) -> tuple[dict[str, Any], list[tuple[str, int, float, float]]]:
    """What a file of measurements says: facts about it, and visits as (key, round, ms, share).

    The share is the part of a core that the process had, 1 where it is not known. A line that is
    neither, such as the one under way when the process was killed, is left out.
    """
    facts: dict[str, Any] = {}
    visits = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            if isinstance(entry, dict):
                facts.update(entry)
                continue
            key, round_, runtime, *share = entry
            (part,) = map(float, share or [1.0])
            visits.append((str(key), int(round_), float(runtime), part))
        except (ValueError, TypeError, RecursionError):
            pass
    return facts, visits


def append_line(path: Path, entry: object) -> None:
    """Writes one line of JSON down, below what a killed process has left of a line."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(entry).encode() + b"\n")
