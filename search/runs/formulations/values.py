"""What choices are worth around a network: measured losses, or gradients of indicators."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.utils import comm
from torch import Tensor

from search.runs.formulations.base import Judge, Search
from search.runs.sensitivities import Sensitivities, digest_of
from search.space import Choice
from search.supernets.single_path import Supernet

logger = logging.getLogger(__name__)

SENSITIVITY_FILE = "sensitivity.json"


def measured_losses(search: Search, judge: Judge, around: Sequence[Choice]) -> list[Tensor]:
    """By how much the loss falls with every choice in the place of a network's own, one by one."""
    return loss_values(search, judge, judge.loss, around, SENSITIVITY_FILE)


def loss_values(
    search: Search,
    judge: Judge,
    loss: Callable[[Sequence[Choice]], float],
    around: Sequence[Choice],
    file_name: str,
) -> list[Tensor]:
    """By how much a loss falls with every choice in the place of a network's own, one by one.

    Args:
        search: whose networks are measured.
        judge: of the networks.
        loss: of a network, by the judge.
        around: the network.
        file_name: in ``OUTPUT_DIR``, written layer by layer; what it has is not measured again.
    """
    space = search.space
    file = Path(search.cfg.OUTPUT_DIR, file_name)
    node = search.cfg.SEARCH.SENSITIVITY
    settings = {
        "images": node.IMAGES,
        "batches": node.CALIBRATION_BATCHES,
        "seed": search.cfg.SEED,
        "fitted": bool(search.cfg.SEARCH.REFIT_BATCHES),
        "data": [search.cfg.CLASSIFICATION.DATASET, *search.cfg.DATASETS.TRAIN],
        "size": search.cfg.CLASSIFICATION.INPUT_SIZE,
    }
    known = Sensitivities(file, space, digest_of(space, settings, search.supernet), around)
    if known.loss is None:
        judge.hold(around, 0)
        known.loss = loss(around)
    for index in range(len(known.layers), len(space.layers)):
        judge.hold(around, index)
        losses = []
        for choice in space.choices(space.layers[index]):
            changed = [*around[:index], choice, *around[index + 1 :]]
            losses.append(known.loss if choice == around[index] else loss(changed))
        known.layers.append(losses)
        if comm.is_main_process():
            known.save()
        logger.info(
            "measured layer %d of %d: loss %.4f to %.4f, %.4f before",
            *(index + 1, len(space.layers), min(losses), max(losses), known.loss),
        )
    return [known.loss - torch.tensor(row, dtype=torch.float64) for row in known.layers]


def gradient_values(search: Search, judge: Judge, around: Sequence[Choice]) -> list[Tensor]:
    """What every choice gives up, by first-order terms: magnitudes of gradients by indicators.

    What a choice adds to the network counts nothing.
    """
    supernet = search.supernet
    assert isinstance(supernet, Supernet)
    values = []
    gradients = judge.gate_gradients(around)
    gates_of = supernet.thresholds.gates_of
    for gradient, own, layer in zip(gradients, around, search.space.layers, strict=True):
        gates = gates_of([own]).cpu()
        row = []
        for choice in search.space.choices(layer):
            if own is None:
                row.append(0.0)
            elif choice is None:
                row.append(-float(gradient[-1]))
            else:
                lost = (gates - gates_of([choice]).cpu()).clamp(min=0)
                row.append(-float((lost * gradient).sum()))
        values.append(torch.tensor(row, dtype=torch.float64))
    return values
