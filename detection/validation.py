"""The losses of a detector on its test sets, which nothing of the training notices."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detection.data.checks import load_records
from detection.data.mapper import CheckedDatasetMapper
from detection.data.proposals import add_proposals
from detection.engine.random_state import seeded
from detection.engine.trainer import unwrap_ddp

VALIDATION_LOSS = "validation_loss"


def validation_losses(cfg: CfgNode, model: nn.Module) -> dict[str, float]:
    """The training's losses, a mean over the images of all test sets.

    Batch norm uses its statistics, dropout is off, images are resized as for the evaluation, and
    what is sampled of anchors and proposals depends on ``SEED`` alone. It is done on a copy of the
    model: no weight, no statistic and no random number of the training is another one afterwards.

    Args:
        cfg: the whole configuration.
        model: the detector, in ``DistributedDataParallel`` or not; every process calls this.

    Returns:
        ``validation_loss``, their sum, and each by its name: ``validation_loss_cls``. On other
        than the main process, nothing.
    """
    own = _loss_model(unwrap_ddp(model))
    sums: dict[str, float] = {}
    images = 0
    # the heads log while they compute losses
    with seeded(cfg.SEED), torch.no_grad(), EventStorage():
        for position, name in enumerate(cfg.DATASETS.TEST):
            for batch in _loader(cfg, name, position):
                batch = [record for record in batch if record is not None]
                if not batch:
                    continue
                for key, loss in own(batch).items():
                    sums[key] = sums.get(key, 0.0) + float(loss) * len(batch)
                images += len(batch)
    return _means(comm.gather((sums, images)))


def _loss_model(model: nn.Module) -> nn.Module:
    """A copy whose parts return losses, and whose layers behave as in evaluation."""
    own = copy.deepcopy(model).train()
    for module in own.modules():
        if isinstance(module, _BatchNorm) or not any(module.children()):
            module.eval()
        if hasattr(module, "vis_period"):
            setattr(module, "vis_period", 0)  # noqa: B010  (of no type that mypy knows)
    return own


def _loader(cfg: CfgNode, name: str, position: int) -> Any:
    """The images of a test set as the evaluation sees them, but with their annotations."""
    records = load_records(name)
    if cfg.MODEL.LOAD_PROPOSALS:
        add_proposals(name, records, cfg.DATASETS.PROPOSAL_FILES_TEST[position])
    options = {**CheckedDatasetMapper.from_config(cfg, is_train=False), "is_train": True}
    return build_detection_test_loader(
        records,
        mapper=CheckedDatasetMapper(**options),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def _means(parts: list[tuple[Mapping[str, float], int]]) -> dict[str, float]:
    images = sum(count for _, count in parts)
    if not images:
        return {}
    names = sorted({name for sums, _ in parts for name in sums})
    means = {name: sum(sums.get(name, 0.0) for sums, _ in parts) / images for name in names}
    return {
        VALIDATION_LOSS: sum(means.values()),
        **{f"validation_{name}": value for name, value in means.items()},
    }
