"""Robust runtime measurement on a machine with other load."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

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
