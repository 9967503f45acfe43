"""Compensates for changes in a machine's speed, within a profile and between profiles.

Processors change their frequency and share it with neighbours: the same network can take 5 %
longer for some seconds, and 15 % longer half an hour later. Within a run, a reference network that
is deployed, loaded and timed as all others is visited again and again between them, and every
figure is given at the median pace. A later run tells the drift since a table was made by networks
that the table's correction was fitted on.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from backbones.factory import load_architecture
from backbones.inference.measurement import Measurement
from backbones.latency import LatencyTable
from detection.deployment import Deployment
from search.profiling.journal import Visit
from search.profiling.workload import Item, choices_named, network_item
from search.space import SearchSpace

REFERENCE = "spnas_100"

EVERY = 4
"""Items measured between two measurements of the reference network."""

WINDOW = 9
"""Measurements of the reference network in a rolling median, since a single one is noisy."""

ANCHORS = 8
"""Networks of a table's correction that are measured again to estimate the drift."""


def reference_item(deployment: Deployment) -> Item:
    """The reference network whose runtime tracks the machine's speed."""
    return network_item(load_architecture(REFERENCE), deployment, "pace")


def at_one_pace(visits: Sequence[Visit], reference: str) -> dict[str, Measurement]:
    """Measurements by key, each scaled to the machine's median speed.

    Args:
        visits: to all items, in the order in which they were made.
        reference: key of the reference among them.
    """
    places = [place for place, visit in enumerate(visits) if visit.key == reference]
    paces = [visits[place].runtime for place in places]
    pace = statistics.median(paces)
    local = np.interp(range(len(visits)), places, rolling_median(paces))
    by_key: dict[str, list[tuple[float, float]]] = {}
    for visit, then in zip(visits, local.tolist(), strict=True):
        if visit.key != reference:
            by_key.setdefault(visit.key, []).append((visit.runtime * pace / then, visit.share))
    return {key: Measurement.of(*zip(*found, strict=True)) for key, found in by_key.items()}


def rolling_median(values: Sequence[float]) -> list[float]:
    """The median of each value and its neighbours, ``WINDOW`` in all where there are as many."""
    half = WINDOW // 2
    return [
        statistics.median(values[max(place - half, 0) : place + half + 1])
        for place in range(len(values))
    ]


def anchor_items(
    space: SearchSpace, table: LatencyTable, deployment: Deployment
) -> dict[str, Item]:
    """Networks to measure again, by the types of their layers; none without a correction.

    Args:
        space: that the table is for.
        table: made earlier on this machine.
        deployment: the table's.

    Raises:
        UserError: if the table was made for another space.
    """
    fitted = table.correction.networks if table.correction else {}
    return {
        types: network_item(
            space.architecture(choices_named(space, types), "anchor"), deployment, f"anchor_{index}"
        )
        for index, types in enumerate(list(fitted)[:ANCHORS])
    }


def drift(
    table: LatencyTable, anchors: Mapping[str, Item], found: Mapping[str, Measurement]
) -> float:
    """Factor by which the machine is slower than when the table was made; 1 without anchors.

    Args:
        table: made earlier on this machine.
        anchors: from :func:`anchor_items`.
        found: the measurement of each, by key.
    """
    if not anchors or table.correction is None:
        return 1.0
    then = table.correction.networks
    return statistics.geometric_mean(
        found[item.key].runtime / then[types] for types, item in anchors.items()
    )
