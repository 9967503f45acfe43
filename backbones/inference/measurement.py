"""Robust runtime measurement on a machine with other load."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NOISY = 0.05
"""Relative spread above which a measurement is unreliable."""

_WHOLE_CORE = 0.9
"""Part of a core that a measurement has to have: what others take makes it longer."""


def taken_by_others(share: float) -> str:
    """What to say of a measurement that had a part of a core; empty where it had it all.

    Args:
        share: the part.
    """
    return "" if share >= _WHOLE_CORE else f"other work had {100 * (1 - share):.0f} % of the core"


@dataclass(frozen=True)
class Measurement:
    """A runtime and how well it repeats.

    Attributes:
        runtime: in ms: the median over the visits.
        spread: half the interquartile range of the visits over their median.
        share: part of a core that the process had, the median over the visits; 1 where it is not
            known.
    """

    runtime: float
    spread: float
    share: float = 1.0

    @classmethod
    def of(cls, visits: Sequence[float], shares: Sequence[float] = (1.0,)) -> Measurement:
        """From the runtimes of several visits, in ms, and the parts of a core that they had."""
        middle, share = statistics.median(visits), statistics.median(shares)
        if len(visits) < 2:
            return cls(middle, 0.0, share)
        low, _, high = statistics.quantiles(visits, n=4, method="inclusive")
        return cls(middle, (high - low) / 2 / middle, share)
