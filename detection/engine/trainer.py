"""The training loop of search and classifier: hooks, checkpoints, writers, resuming."""

from __future__ import annotations

import inspect
import logging
import os
import weakref
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn

from backbones.errors import UserError
from detection.engine.best import BestModel
from detection.engine.checkpoint import Checkpointer
from detection.engine.resumable import ResumableTrainer
from detection.engine.unreadable import UnreadableHook
from detection.engine.wandb_writer import WandbSettings, WandbWriter
from detection.engine.writers import MetricsHook, build_run_writers

__all__ = ["ResumableTrainer", "RunTrainer", "unwrap_ddp", "wrap_ddp"]

logger = logging.getLogger(__name__)

# Detectron2's order: what changes the state of the run comes before its checkpoint, evaluation
# after it (if it fails, the checkpoint exists), writers at the end.
_HOOK_ORDER: tuple[tuple[type[HookBase], ...], ...] = (
    (hooks.IterationTimer,),
    (HookBase,),
    (hooks.PeriodicCheckpointer,),
    (hooks.EvalHook, BestModel),
    (hooks.PeriodicWriter, UnreadableHook),
)


def wrap_ddp(model: nn.Module, **_: Any) -> nn.Module:
    """The model in ``DistributedDataParallel`` if there are several processes, else as it is.

    On the CPU, too, which Detectron2's ``create_ddp_model`` cannot, whose options are left out.
    Buffers start as the first process's, and then stay each process's own
    (:func:`~detection.engine.replicas.unite_buffers`).

    Raises:
        UserError: if the processes communicate by GPU and the model is on the CPU.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    if device.type == "cpu" and dist.get_backend() == "nccl":
        raise UserError(
            "MODEL.DEVICE is 'cpu', but the processes of this run have a GPU each; leave it at "
            "'cuda', or use --num-gpus 0 --num-processes 2 or more"
        )
    for buffer in model.buffers():  # which PyTorch before 2.14 leaves as they are
        dist.broadcast(buffer.detach(), 0)
    ids = [torch.cuda.current_device()] if device.type == "cuda" else None
    kind = nn.parallel.DistributedDataParallel
    # as PyTorch calls it from 2.14 on, and before
    names = ("forward_sync_buffers", "broadcast_buffers")
    known = inspect.signature(kind).parameters
    options: dict[str, Any] = {next(name for name in names if name in known): False}
    return kind(model, ids, **options)


def unwrap_ddp(model: nn.Module) -> nn.Module:
    """The model itself, whether or not :func:`wrap_ddp` wrapped it."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


class RunTrainer(ResumableTrainer):
    """Base of the search and of the classifier training; a subclass overrides ``run_step``.

    The data loader's iterator is best made in the constructor or in ``before_train``: made in
    the first step, it would draw from the random stream that a checkpoint continues.

    Args:
        model: on its device, wrapped by :func:`wrap_ddp` if needed.
        max_iter: iterations in all.
        output_dir: the run folder.
        checkpointables: what else has a state: optimizers, averaged weights, scalers.
        log_period: iterations between two lines of metrics.
        checkpoint_period: iterations between two checkpoints; there is one at the end, too.
        wandb: None is no W&B.
        max_to_keep: periodic checkpoints kept, besides the final one; None is all.

    Attributes:
        checkpointer: saves the model, the checkpointables and this trainer.
        start_iter: where :meth:`train` starts; above 0 after resuming.

    Raises:
        UserError: if a number of iterations is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        max_iter: int,
        output_dir: str,
        checkpointables: Mapping[str, Any],
        log_period: int = 20,
        checkpoint_period: int = 1000,
        wandb: WandbSettings | None = None,
        max_to_keep: int | None = 3,
    ) -> None:
        """Registers the default hooks; nothing is read or written yet."""
        super().__init__()
        _check_positive(max_iter=max_iter, log_period=log_period)
        _check_positive(checkpoint_period=checkpoint_period)
        if max_to_keep is not None:
            _check_positive(max_to_keep=max_to_keep)
        self.model = model
        self.max_iter = max_iter
        self.output_dir = output_dir
        self.log_period = log_period
        self.wandb_settings = wandb
        self._writers: list[EventWriter] = []
        states = {"trainer": weakref.proxy(self), **checkpointables}
        self.checkpointer = Checkpointer(model, output_dir, **states)
        self.register_hooks([hooks.IterationTimer()])
        if comm.is_main_process():
            periodic = hooks.PeriodicCheckpointer(
                self.checkpointer, checkpoint_period, max_to_keep=max_to_keep
            )
            self.register_hooks([periodic])

    @property
    def wandb_writer(self) -> WandbWriter:
        """For tables and summaries; one that does nothing without W&B or outside a training."""
        active = (writer for writer in self._writers if isinstance(writer, WandbWriter))
        return next(active, WandbWriter(WandbSettings(enabled=False), self.output_dir))

    def register_hooks(self, hooks: list[HookBase | None]) -> None:
        """Adds hooks, wherever they belong.

        Schedulers and other hooks that change the run come before its checkpoint, evaluation
        after it, writers last; within these groups the order of registration holds.
        """
        super().register_hooks(hooks)
        self._hooks.sort(key=_hook_rank)

    def build_writers(self) -> list[EventWriter]:
        """Console, ``metrics.json``, TensorBoard and W&B; called on rank 0 at the start."""
        return build_run_writers(
            self.output_dir,
            self.max_iter,
            self.wandb_settings,
            self.start_iter,
            self.progress_note,
        )

    def resume_or_load(self, path: str = "", resume: bool = False) -> None:
        """Continues the run in ``output_dir``, or starts from the weights in ``path``.

        Args:
            path: a model file for a new run; empty starts from the model as it is.
            resume: whether to continue from the last checkpoint, if there is one.

        Raises:
            UserError: if the checkpoint is broken or belongs to another configuration.
        """
        resuming = resume and self.checkpointer.has_checkpoint()
        self.checkpointer.resume_or_load(path, resume=resume)
        if resuming:
            # The checkpoint's iteration is finished.
            self.start_iter = self.iter + 1
            logger.info("Resuming at iteration %d of %d", self.start_iter, self.max_iter)

    def train(self) -> None:
        """Trains from ``start_iter`` to ``max_iter``."""
        super().train(self.start_iter, self.max_iter)

    def before_train(self) -> None:
        """Opens the writers, then runs the hooks."""
        if comm.is_main_process() and not self._writers:
            os.makedirs(self.output_dir, exist_ok=True)
            self._writers = self.build_writers()
            said = UnreadableHook(self.output_dir, self.log_period)
            self.register_hooks([said, MetricsHook(self._writers, self.log_period)])
        super().before_train()


def _check_positive(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{name} is {value}; expected 1 or more")


def _hook_rank(hook: HookBase) -> int:
    ranks = [rank for rank, classes in enumerate(_HOOK_ORDER) if isinstance(hook, classes)]
    specific = [rank for rank in ranks if _HOOK_ORDER[rank] != (HookBase,)]
    return (specific or ranks)[0]
