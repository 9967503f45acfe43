"""One optimizer step on the gradients of several forward passes: a large batch in little memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import TYPE_CHECKING

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn

from backbones.errors import UserError

if TYPE_CHECKING:
    from detection.engine.precision import Precision, StepScaler


def images_per_pass(cfg: CfgNode) -> int:
    """Images of one forward pass in one process.

    ``SOLVER.IMS_PER_BATCH`` is the batch of an optimizer step: that of all processes, and of their
    ``SOLVER.ACCUMULATE`` forward passes.

    Raises:
        UserError: if it cannot be divided among them.
    """
    total, passes, processes = (
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.SOLVER.ACCUMULATE,
        comm.get_world_size(),
    )
    if passes < 1:
        raise UserError(
            f"SOLVER.ACCUMULATE is {passes}; expected the forward passes of a step, 1 or more"
        )
    if total < 1 or total % (processes * passes):
        parts = f"the {processes} processes"
        if passes > 1:
            parts = f"{processes * passes}: {parts}, by SOLVER.ACCUMULATE {passes}"
        raise UserError(f"SOLVER.IMS_PER_BATCH is {total}; expected a multiple of {parts}")
    return int(total // (processes * passes))


def forward_passes(model: nn.Module, count: int) -> Iterator[int]:
    """The numbers of a step's forward passes; processes exchange gradients in the last one alone.

    Args:
        model: in ``DistributedDataParallel`` or not.
        count: of passes.
    """
    for number in range(count):
        exchange: AbstractContextManager[None] = nullcontext()
        if number < count - 1 and isinstance(model, nn.parallel.DistributedDataParallel):
            exchange = model.no_sync()
        with exchange:
            yield number


def detector_step(
    trainer: SimpleTrainer, precision: Precision, scaler: StepScaler, passes: int = 1
) -> None:
    """The step of one of Detectron2's trainers, in several forward passes.

    Losses, and so their gradients, are means over the passes.

    Args:
        trainer: whose model, optimizer and batches they are.
        precision: of the forward passes.
        scaler: takes the optimizer's step.
        passes: with the next batch each.
    """
    trainer.optimizer.zero_grad()
    means: dict[str, Tensor] = {}
    data_time = 0.0
    for _ in forward_passes(trainer.model, passes):
        start = time.perf_counter()
        batch = next(trainer._data_loader_iter)
        data_time += time.perf_counter() - start
        with precision.autocast():
            found = trainer.model(batch)
        losses = {"total_loss": found} if isinstance(found, Tensor) else found
        scaler.scale(reduce(torch.add, losses.values()) / passes).backward()
        for name, loss in losses.items():
            means[name] = means.get(name, 0) + loss.detach() / passes
    trainer._write_metrics(means, data_time)
    scaler.take(trainer.optimizer)
