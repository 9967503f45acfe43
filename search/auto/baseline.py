"""The published backbone that is trained beside the network found, by the same recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detectron2.config import CfgNode

from backbones.architecture import Architecture
from backbones.exported import ARCHITECTURE_FILE, BACKBONE_FILE
from backbones.latency import LatencyTable
from backbones.trained import named_architecture, named_weights
from backbones.zoo import list_models, load_architecture, published_weights
from search.auto.at_hand import fetched, is_at_hand
from search.auto.narrowed import width_for, write_narrowed
from search.auto.scale import By, Scale

SAME_RUNTIME = 15.0
"""Percent within which two backbones count as of the same runtime."""

_CLOSE = 40.0
"""Percent within which a network is measured, by its multiply-accumulates."""

_SAID = {
    "table": "by the table",
    "engine": "measured beside the start",
    "macs": "by its multiply-accumulates",
}


@dataclass(frozen=True)
class Baseline:
    """A backbone to compare with.

    Attributes:
        name: of the network.
        kind: ``published`` as it is, or the seed network ``narrowed`` to the runtime.
        arch: for ``MODEL.SPNAS.ARCH``.
        width_mult: for ``MODEL.SPNAS.WIDTH_MULT``; 1 of a narrowed network, whose file has it.
        weights: for ``MODEL.WEIGHTS``.
        runtime: on the table's scale, in its unit.
        by: what says the runtime: ``table`` where that covers the network, ``engine`` where it was
            measured, ``macs`` where neither could be.
        target: what it was to be near to.
        pixel_mean: for ``MODEL.PIXEL_MEAN``.
        pixel_std: for ``MODEL.PIXEL_STD``.
        note: what has to be known of it, in half a line.
    """

    name: str
    kind: Literal["published", "narrowed"]
    arch: str
    width_mult: float
    weights: str
    runtime: float
    by: By
    target: float
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    note: str

    def options(self) -> tuple[str, ...]:
        """Keys and values, in turns, that put it in the place of another backbone."""
        pairs = {
            "MODEL.SPNAS.ARCH": self.arch,
            "MODEL.SPNAS.WIDTH_MULT": f"{self.width_mult:g}",
            "MODEL.WEIGHTS": self.weights,
            "MODEL.PIXEL_MEAN": str(list(self.pixel_mean)),
            "MODEL.PIXEL_STD": str(list(self.pixel_std)),
        }
        return tuple(word for pair in pairs.items() for word in pair)


def choose_baseline(
    target: float, table: LatencyTable, seed: str, folder: Path, cfg: CfgNode | None = None
) -> Baseline:
    """The published backbone whose runtime is nearest to that of the network found.

    Where none that can be had here is within :data:`SAME_RUNTIME`, and the seed network is slower,
    that one is narrowed to the runtime.

    Args:
        target: runtime of the network found, in the table's unit.
        table: that the search used, of this machine or not.
        seed: network of the zoo, address of weights, or run, that the search started from.
        folder: for ``architecture.json`` and ``backbone.pth`` of a narrowed network.
        cfg: of the detector, resolved: batch-norm statistics of a narrowed network are estimated
            on its training images. None keeps those that the channels had.

    Raises:
        UserError: if there are no weights of the seed network, or the table does not cover it.
    """
    named = named_weights(seed, "--seed-network")
    scale = Scale.of(table, named_architecture(seed))
    candidates = _candidates(seed, named)
    while True:
        nearest = _nearest(target, scale, candidates)
        off = 100 * (nearest.runtime / target - 1)
        if abs(off) > SAME_RUNTIME and target < scale.start_runtime:
            return _narrowed(target, scale, named, folder, cfg)
        if nearest.weights == named or fetched(nearest.weights):
            return nearest
        candidates = [item for item in candidates if item.weights != nearest.weights]


@dataclass(frozen=True)
class _Candidate:
    """A network with weights that can be had here.

    Attributes:
        arch: for ``MODEL.SPNAS.ARCH``.
        width_mult: for ``MODEL.SPNAS.WIDTH_MULT``.
        weights: for ``MODEL.WEIGHTS``.
        architecture: with the width multiplier applied.
    """

    arch: str
    width_mult: float
    weights: str
    architecture: Architecture


def _candidates(seed: str, named: str) -> list[_Candidate]:
    """The seed network, and every other one of the zoo whose weights can be had, once each.

    Args:
        seed: as of :func:`choose_baseline`.
        named: its weights.
    """
    own, place = named_architecture(seed), Path(seed).expanduser()
    arch = str(place / ARCHITECTURE_FILE) if place.is_dir() else seed
    arch = own.name if own.name in list_models() else arch
    found = {own.layers: _Candidate(arch, 1.0, named, own)}
    for name in list_models():
        for weights in published_weights(load_architecture(name)):
            layers = weights.architecture.layers
            if layers not in found and is_at_hand(weights):
                found[layers] = _Candidate(
                    name, weights.width_mult, weights.address, weights.architecture
                )
    return list(found.values())


def _nearest(target: float, scale: Scale, candidates: Sequence[_Candidate]) -> Baseline:
    """Only networks that are close by their multiply-accumulates are measured."""
    rough = [abs(scale.rough(item.architecture) / target - 1) for item in candidates]
    close = [item for item, off in zip(candidates, rough, strict=True) if 100 * off <= _CLOSE]
    close = close or [candidates[rough.index(min(rough))]]
    runtimes = scale.runtimes([item.architecture for item in close])
    item, (runtime, by) = min(
        zip(close, runtimes, strict=True), key=lambda pair: abs(pair[1][0] - target)
    )
    off = 100 * (runtime / target - 1)
    what = "as published, of the same runtime" if abs(off) <= SAME_RUNTIME else "as published"
    note = f"{what} ({off:+.0f} %), {_SAID[by]}"
    return _baseline("published", item, runtime, by, target, note)


def _narrowed(
    target: float, scale: Scale, weights: str, folder: Path, cfg: CfgNode | None
) -> Baseline:
    found = width_for(scale, target)
    write_narrowed(folder, scale.start, found.width_mult, weights, cfg)
    files = str(folder / ARCHITECTURE_FILE), str(folder / BACKBONE_FILE)
    item = _Candidate(files[0], 1.0, files[1], found.architecture)
    off = 100 * (found.runtime / target - 1)
    note = (
        f"{scale.start.name} narrowed to {100 * found.width_mult:.0f} % of its channels, the most "
        f"important ones ({off:+.0f} %), {_SAID[found.by]}; no published network that can be had "
        f"here is within {SAME_RUNTIME:g} %"
    )
    return _baseline("narrowed", item, found.runtime, found.by, target, note)


def _baseline(
    kind: Literal["published", "narrowed"],
    item: _Candidate,
    runtime: float,
    by: By,
    target: float,
    note: str,
) -> Baseline:
    pixels = item.architecture.input
    return Baseline(
        name=item.architecture.name,
        kind=kind,
        arch=item.arch,
        width_mult=item.width_mult,
        weights=item.weights,
        runtime=round(runtime, 4),
        by=by,
        target=target,
        pixel_mean=tuple(pixels.pixel_mean),
        pixel_std=tuple(pixels.pixel_std),
        note=note,
    )
