"""Re-estimates the batch-norm statistics of a network cut out of a supernet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from detectron2.config import CfgNode
from fvcore.nn.precise_bn import update_bn_stats
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detection.engine.random_state import seeded
from detection.engine.replicas import unite_buffers
from search.classification.data import ImageSet, build_train_loader
from search.classification.pixels import expected_images, normalised

_ORDER = 10**6
"""Order of the images for calibration: another one than that of any training."""


def calibrated(network: nn.Module, cfg: CfgNode, dataset: ImageSet, batches: int) -> nn.Module:
    """Re-estimates a network's batch-norm statistics and returns it in eval mode.

    The batches, augmentation and dropout included, depend on configuration and seed alone.

    Shared weights leave running statistics that are a mixture over all networks that they were
    trained in; the mean over batches that this network sees takes their place.

    Args:
        network: its statistics are changed.
        cfg: of the loader.
        dataset: the training images.
        batches: to estimate on, the same for every network; 0 leaves the statistics as they are.
    """
    if batches:
        with seeded(cfg.SEED):
            pixels = calibration_inputs(network, cfg, dataset, batches)
            estimate_statistics(network, pixels, batches * cfg.SOLVER.ACCUMULATE)
    return network.eval()


def calibration_inputs(
    network: nn.Module, cfg: CfgNode, dataset: ImageSet, batches: int
) -> Iterator[Tensor]:
    """What a network sees of the batches for calibration; augmentation is drawn on the way.

    Args:
        network: says where images have to be, and how normalised.
        cfg: of the loader.
        dataset: the training images.
        batches: how many, of all processes and accumulated steps together.
    """
    device, expected = next(network.parameters()).device, expected_images(network)
    for images, _ in islice(calibration_batches(cfg, dataset), batches * cfg.SOLVER.ACCUMULATE):
        yield normalised(images.to(device), expected)


def calibration_batches(cfg: CfgNode, dataset: ImageSet) -> DataLoader[Any]:
    """Endless training batches in an order of their own."""
    return build_train_loader(cfg, dataset, order=_ORDER)


@torch.no_grad()
def estimate_statistics(network: nn.Module, inputs: Iterable[Any], batches: int) -> None:
    """Replaces batch-norm statistics by their mean over batches; leaves the network in training.

    Args:
        network: what an element of ``inputs`` is given to.
        inputs: as many batches, or more.
        batches: to estimate on.
    """
    network.train()
    update_bn_stats(network, islice(inputs, batches), batches)
    unite_buffers([network])
