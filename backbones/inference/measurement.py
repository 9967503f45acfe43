"""Robust runtime measurement on a machine with other load."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from backbones.inference.base import Session

NOISY = 0.05
"""Relative spread above which a measurement is unreliable."""


@dataclass(frozen=True)
class Measurement:
    """A runtime and how well it repeats.

    Attributes:
        runtime: in ms: the median over the visits.
        spread: half the interquartile range of the visits over their median.
    """

    runtime: float
    spread: float

    @classmethod
    def of(cls, visits: Sequence[float]) -> Measurement:
        """From the runtimes of several visits, in ms."""
        middle = statistics.median(visits)
        if len(visits) < 2:
            return cls(middle, 0.0)
        low, _, high = statistics.quantiles(visits, n=4, method="inclusive")
        return cls(middle, (high - low) / 2 / middle)


VISIT_MILLISECONDS = 30.0
FEWEST, MOST = 2, 50


def visit(session: Session) -> float:
    """Runtime of one inference in ms: the median over one short visit to the session.

    Visits to different networks are made in turns, so that all of them meet the same
    disturbances, and the caches and the clock of the processor as the others left them. After one
    inference that warms up, a visit times ``VISIT_MILLISECONDS`` of them, ``FEWEST`` however long
    they take and ``MOST`` however short they are.
    """
    session.times(1)  # packs weights, fills caches
    (first,) = session.times(1)
    return statistics.median([first, *session.times(_inferences(first) - 1)])


def visit_seconds(session: Session) -> float:
    """How long a visit takes, by two inferences."""
    _, runtime = session.times(2)
    return (1 + _inferences(runtime)) * runtime / 1e3


def _inferences(runtime: float) -> int:
    return min(max(round(VISIT_MILLISECONDS / runtime), FEWEST), MOST)
