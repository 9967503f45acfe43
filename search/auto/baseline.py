"""The published backbone that is trained beside the network found, by the same recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backbones.latency import LatencyTable

SAME_RUNTIME = 15.0
"""Percent within which two backbones count as of the same runtime."""


@dataclass(frozen=True)
class Baseline:
    """A backbone to compare with.

    Attributes:
        name: of the network.
        kind: ``published`` as it is, or the seed network ``narrowed`` to the runtime.
        arch: for ``MODEL.SPNAS.ARCH``.
        weights: for ``MODEL.WEIGHTS``.
        runtime: on the table's scale, in its unit.
        by: ``table`` where that covers the network, ``engine`` where it was measured, ``macs``
            where neither could be.
        target: what it was to be near to.
        pixel_mean: for ``MODEL.PIXEL_MEAN``.
        pixel_std: for ``MODEL.PIXEL_STD``.
        note: what has to be known of it, in half a line, for the table.
    """

    name: str
    kind: Literal["published", "narrowed"]
    arch: str
    weights: str
    runtime: float
    by: Literal["table", "engine", "macs"]
    target: float
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    note: str

    def options(self) -> tuple[str, ...]:
        """Keys and values, in turns, that put it in the place of another backbone."""
        raise NotImplementedError


def choose_baseline(target: float, table: LatencyTable, seed: str, folder: Path) -> Baseline:
    """The published backbone at hand whose runtime is nearest, or else the seed network narrowed.

    Args:
        target: runtime of the network found, in the table's unit.
        table: that the search used; measured on this machine or not.
        seed: network of the zoo, or address of its weights, that the search started from.
        folder: for ``architecture.json`` and ``backbone.pth`` of a narrowed network.
    """
    raise NotImplementedError
