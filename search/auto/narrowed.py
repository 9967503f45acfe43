"""The seed network narrowed to a runtime, as the files that a detector's configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from backbones.architecture import Architecture, LayerSpec
from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE, save_backbone
from backbones.published import load_state
from backbones.weights import StateDict, load_weights
from detection.engine.random_state import seeded
from detection.trainer import DetectionTrainer
from search.auto.scale import By, Scale
from search.classification.calibration import estimate_statistics
from search.runs.detector_backbone import backbone_in, image_tensors
from search.start.narrowing import narrow, narrowed

_WIDTHS = tuple(round(0.25 + 0.01 * step, 2) for step in range(75))
_CLOSE_ENOUGH = 0.02
_MEASUREMENTS = 4
_BATCHES = 20
"""As many as configs/search/mask_rcnn_pretrained.yaml has for the network found."""


@dataclass(frozen=True)
class Narrowed:
    """A width of a network.

    Attributes:
        width_mult: factor on its channels.
        architecture: with that applied.
        runtime: on the table's scale.
        by: what says it.
    """

    width_mult: float
    architecture: Architecture
    runtime: float
    by: By


def width_for(scale: Scale, target: float) -> Narrowed:
    """The width at which the start's runtime is nearest to a target.

    It is guessed from multiply-accumulates; the next guess lies between those that were measured.

    Args:
        scale: with the network to narrow.
        target: below its runtime, in the table's unit.
    """
    widths = _widths(scale.start)
    # runtime, and what multiply-accumulates say of it
    points = [(0.0, 0.0), (scale.start_runtime, scale.start_runtime)]
    found: dict[float, Narrowed] = {}
    while len(found) < _MEASUREMENTS:
        runtimes, roughly = np.array(sorted(points)).T
        width = _nearest(scale, widths, float(np.interp(target, runtimes, roughly)))
        if width in found:
            break
        (runtime, by), *_ = scale.runtimes([widths[width]])
        found[width] = Narrowed(width, widths[width], runtime, by)
        points.append((runtime, scale.rough(widths[width])))
        if abs(runtime / target - 1) <= _CLOSE_ENOUGH:
            break
    return min(found.values(), key=lambda item: abs(item.runtime - target))


def _widths(start: Architecture) -> dict[float, Architecture]:
    """The different networks of :data:`_WIDTHS`, from narrow to wide."""
    found: dict[tuple[LayerSpec, ...], tuple[float, Architecture]] = {}
    for width in _WIDTHS:
        try:
            network = narrowed(start, width)
        except UserError:  # too narrow
            continue
        if network.layers != start.layers:
            found.setdefault(network.layers, (width, network))
    return dict(found.values())


def _nearest(scale: Scale, widths: Mapping[float, Architecture], rough: float) -> float:
    """The width whose multiply-accumulates come nearest to a runtime."""
    return min(widths, key=lambda width: abs(scale.rough(widths[width]) - rough))


def write_narrowed(
    folder: Path, start: Architecture, width_mult: float, weights: str, cfg: CfgNode | None
) -> None:
    """Writes ``architecture.json`` and ``backbone.pth`` of a narrowed network.

    Args:
        folder: for both.
        start: the network to narrow.
        width_mult: factor on its channels.
        weights: its own, a file or an address.
        cfg: of the detector, as of :func:`search.auto.baseline.choose_baseline`.
    """
    architecture, state = narrow(start, load_state(weights, start), width_mult, weights)
    if cfg is not None:
        state = _with_statistics(cfg, folder, architecture, state)
    save_backbone(folder, architecture, state)


def _with_statistics(
    cfg: CfgNode, folder: Path, architecture: Architecture, state: StateDict
) -> StateDict:
    """The weights with batch-norm statistics of the training images."""
    architecture.save(folder / ARCHITECTURE_FILE)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.SPNAS.ARCH, cfg.MODEL.SPNAS.WIDTH_MULT = str(folder / ARCHITECTURE_FILE), 1.0
    cfg.MODEL.SPNAS.NORM = "BN"
    cfg.MODEL.PIXEL_MEAN = list(architecture.input.pixel_mean)
    cfg.MODEL.PIXEL_STD = list(architecture.input.pixel_std)
    detector: Any = DetectionTrainer.build_model(cfg)
    backbone = backbone_in(detector)
    load_weights(backbone, state, architecture.name)
    with seeded(cfg.SEED):
        loader = DetectionTrainer.build_train_loader(cfg)
        estimate_statistics(backbone, image_tensors(detector, loader), _BATCHES)
    return {**state, **{k: v.cpu() for k, v in backbone.state_dict().items()}}
