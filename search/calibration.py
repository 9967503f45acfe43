"""Batch-norm statistics of a network whose weights were trained as part of several."""

from __future__ import annotations

from itertools import islice

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from fvcore.nn.precise_bn import update_bn_stats
from torch import nn

from search.data import ClassificationFolder, build_train_loader


def calibrated(
    network: nn.Module, cfg: CfgNode, dataset: ClassificationFolder, start_iter: int
) -> nn.Module:
    """The network in eval mode, after an estimate of its own batch-norm statistics.

    Shared weights leave running statistics that are a mixture over all networks that they were
    trained in; the mean over batches that this network sees takes their place.

    Args:
        network: its statistics are changed.
        cfg: ``SEARCH.CALIBRATION_BATCHES`` is the number of batches; 0 leaves the statistics as
            they are.
        dataset: the training images.
        start_iter: iteration whose batch is the first, so that these are not those of a training.
    """
    batches = cfg.SEARCH.CALIBRATION_BATCHES
    if batches:
        network.train()
        device = next(network.parameters()).device
        loader = build_train_loader(cfg, dataset, start_iter)
        images = (images.to(device) for images, _ in islice(loader, batches))
        with torch.no_grad():
            update_bn_stats(network, images, batches)
        _average_statistics(network)
    return network.eval()


def _average_statistics(network: nn.Module) -> None:
    """In several processes, averages the batch-norm statistics that each one estimated."""
    if comm.get_world_size() == 1:
        return
    for name, buffer in network.named_buffers():
        if "running_" in name:
            torch.distributed.all_reduce(buffer)
            buffer /= comm.get_world_size()
