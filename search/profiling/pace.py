"""The pace of a machine: one network measured beside everything else, as a clock.

Processors change their frequency and share it with neighbours: the same network can take 15 %
longer an hour later, and 5 % longer for some seconds. Such a change meets all networks alike, so
figures are given at one pace: that of a reference network, timed right after every visit.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from backbones.engines.measurement import Measurement
from backbones.factory import load_architecture
from detection.deployment import Deployment
from search.profiling.journal import Visit
from search.profiling.workload import Item, network_item

REFERENCE = "spnas_100"
"""Timed as a classifier at 224×224, whatever else is measured."""

MILLISECONDS = 10.0
"""How long to time the reference after a visit."""

WINDOW = 9
"""Neighbouring visits whose median reference is the pace of one."""


@dataclass(frozen=True)
class Measurements:
    """What a profile measured.

    Attributes:
        items: the measurement of every item, by key, all at one pace.
        pace: runtime of the reference network in ms, by the median over the profile.
    """

    items: dict[str, Measurement]
    pace: float


def reference_item() -> Item:
    """The network that tells the pace."""
    return network_item(load_architecture(REFERENCE), Deployment(), "pace")


def at_one_pace(visits: Sequence[Visit]) -> Measurements:
    """Measurements as if the machine had kept the pace of the median.

    Args:
        visits: of all items, in the order in which they were made.
    """
    pace = statistics.median(visit.pace for visit in visits)
    by_key: dict[str, list[float]] = {}
    for visit, local in zip(visits, local_paces([visit.pace for visit in visits]), strict=True):
        by_key.setdefault(visit.key, []).append(visit.runtime * pace / local)
    return Measurements({key: Measurement.of(found) for key, found in by_key.items()}, pace)


def local_paces(paces: Sequence[float]) -> list[float]:
    """The median over each one and its neighbours: a single figure has noise of its own."""
    half = WINDOW // 2
    return [
        statistics.median(paces[max(index - half, 0) : index + half + 1])
        for index in range(len(paces))
    ]
