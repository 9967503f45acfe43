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


def visit(session: Session, milliseconds: float = 30.0, fewest: int = 2, most: int = 50) -> float:
    """Runtime of one inference in ms: the median over one short visit to the session.

    Visits to different networks are made in turns, so that all of them meet the same
    disturbances, and the caches and the clock of the processor as the others left them.

    Args:
        session: the network.
        milliseconds: how long to stay, after one inference that warms up.
        fewest: inferences to time, however long they take.
        most: inferences to time, however short they are.
    """
    session.times(1)  # packs weights, fills caches
    (first,) = session.times(1)
    count = min(max(round(milliseconds / first), fewest), most)
    return statistics.median([first, *session.times(count - 1)])
