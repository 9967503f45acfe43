"""Base trainer of the search and of the classifier: data, optimizer, EMA weights, evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from backbones.architecture import IMAGENET, Architecture
from backbones.exported import ARCHITECTURE_FILE
from detection.engine.best import BestModel, check_best_keys
from detection.engine.checkpoint_files import number_to_keep
from detection.engine.metrics import has_row
from detection.engine.replicas import mean_over_processes
from detection.engine.results import results_part, write_results
from detection.engine.trainer import RunTrainer, wrap_ddp
from detection.engine.wandb_writer import WandbSettings
from search.classification.accuracy import evaluate
from search.classification.data import (
    build_dataset,
    build_train_loader,
    build_val_loader,
    check_same_classes,
    checked_batch,
)
from search.classification.optimizer import build_lr_scheduler, build_optimizer

METRICS = ("val/top1", "val/top5", "val/loss")
"""What an evaluation finds, as ``SOLVER.BEST_METRIC`` names it."""

logger = logging.getLogger(__name__)


class ClassificationTrainer(RunTrainer):
    """Trains a model on classification images; what it minimises is :meth:`losses`.

    Args:
        cfg: the configuration, with the keys of ``add_search_config``.
        model: images (N, 3, H, W) → logits (N, C).
        checkpointables: further state of a subclass.

    Attributes:
        images: what the model's architecture is made for: mean and deviation are taken from it.
        part: of ``results.json`` that a complete training writes, behind all its other files.
    """

    part: ClassVar[str]

    def __init__(
        self, cfg: CfgNode, model: nn.Module, checkpointables: Mapping[str, Any] | None = None
    ) -> None:
        self.cfg = cfg
        self.device = torch.device(cfg.MODEL.DEVICE)
        architecture = getattr(model, "architecture", None)
        self.images = architecture.input if isinstance(architecture, Architecture) else IMAGENET
        self.train_data, self.val_data = self.datasets()
        steps_per_epoch = max(len(self.train_data) / checked_batch(cfg), 1.0)
        max_iter = _steps(cfg.CLASSIFICATION.EPOCHS, steps_per_epoch)
        self.layout = (
            torch.channels_last if cfg.MODEL.SPNAS.CHANNELS_LAST else torch.contiguous_format
        )
        model = model.to(self.device).to(memory_format=self.layout).train()
        self.unwrapped = model
        self.optimizer = build_optimizer(cfg, model)
        decay = cfg.CLASSIFICATION.EMA_DECAY
        # the warm-up of the decay lets short runs average over their own length
        self.ema = ModelEmaV3(model, decay=decay, use_warmup=True) if decay else None
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=cfg.SOLVER.AMP.ENABLED and self.device.type == "cuda"
        )
        state = {"optimizer": self.optimizer, "scaler": self.scaler, **(checkpointables or {})}
        if self.ema:
            state["ema"] = self.ema
        super().__init__(
            wrap_ddp(model),
            max_iter=max_iter,
            output_dir=cfg.OUTPUT_DIR,
            checkpointables=state,
            log_period=cfg.VIS_PERIOD or 20,
            checkpoint_period=_steps(cfg.CLASSIFICATION.CHECKPOINT_EPOCHS, steps_per_epoch),
            wandb=WandbSettings.from_cfg(cfg.WANDB),
            max_to_keep=number_to_keep(cfg, usual=3),
        )
        averaged = self.averaged_model
        period = _steps(cfg.CLASSIFICATION.EVAL_EPOCHS, steps_per_epoch)
        metric, patience = cfg.SOLVER.BEST_METRIC, cfg.SOLVER.EARLY_STOPPING.PATIENCE
        check_best_keys(
            *(metric, patience, "CLASSIFICATION.EVAL_EPOCHS", period < max_iter),
            METRICS,
        )
        scheduler = build_lr_scheduler(cfg, self.optimizer, max_iter)
        self.register_hooks(
            [
                hooks.LRScheduler(self.optimizer, scheduler),
                hooks.EvalHook(period, self.evaluate),
                BestModel(period, metric, lambda: averaged, patience) if metric else None,
            ]
        )
        self._batches: Iterator[Any] = iter(())

    def datasets(self) -> tuple[Any, Any]:
        """The images to train on, augmented, and those to evaluate on."""
        train = build_dataset(self.cfg, "train", augment=True, images=self.images)
        val = build_dataset(self.cfg, "val", augment=False, images=self.images)
        check_same_classes(train, val)
        for dataset in (train, val):
            dataset.check()
        counts = len(train), len(val), len(train.classes)
        logger.info("Training on %d images, validation on %d, of %d classes", *counts)
        return train, val

    @property
    def averaged_model(self) -> nn.Module:
        """The model to evaluate and export: the averaged one where weights are averaged."""
        return self.ema.module if self.ema else self.unwrapped

    @property
    def progress(self) -> float:
        """Part of the training that is done, from 0 to 1."""
        return self.iter / self.max_iter

    @property
    def complete(self) -> bool:
        """Whether the last iteration is done, in this process or in one before a resume."""
        return self.finished >= self.max_iter

    def losses(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Named terms whose sum is minimised: the label-smoothed cross entropy.

        Args:
            logits: (N, C).
            targets: (N,) class indices.
        """
        smoothing = self.cfg.CLASSIFICATION.LABEL_SMOOTHING
        return {"loss_ce": F.cross_entropy(logits, targets, label_smoothing=smoothing)}

    def before_train(self) -> None:
        """Creates the training iterator at the iteration to start from."""
        self._batches = self.train_batches(self.start_iter)
        super().before_train()

    def settled(self) -> bool:
        """Whether the last evaluation came to its end, with the network exported."""
        return (
            results_part(self.folder, self.part) is not None
            and Path(self.folder, ARCHITECTURE_FILE).exists()
            and has_row(self.folder, self.finished)
        )

    def train_batches(self, start_iter: int) -> Iterator[Any]:
        """Endless batches from iteration ``start_iter`` on."""
        return iter(build_train_loader(self.cfg, self.train_data, start_iter))

    def run_step(self) -> None:
        """One step on all processes."""
        start = time.perf_counter()
        images, targets = next(self._batches)
        data_time = time.perf_counter() - start
        images = images.to(self.device, non_blocking=True, memory_format=self.layout)
        targets = targets.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        losses, logits = self.backward(images, targets)
        self.after_backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update(self.unwrapped, step=self.iter)
        self._log(losses, logits, targets, data_time)

    def backward(self, images: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Adds the gradients of the losses on a batch to those of the weights.

        A subclass can sum those of several networks in one set of weights.

        Args:
            images: (N, 3, H, W).
            targets: (N,) class indices.

        Returns:
            The losses, and the (N, C) logits that they are of.
        """
        with self._autocast():
            logits = self.model(images)
        losses = self.losses(logits.float(), targets)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss is {float(total)} at iteration {self.iter}")
        self.scaler.scale(total).backward()
        return losses, logits

    def after_backward(self) -> None:
        """Called between backward pass and optimizer step; a subclass can clear gradients here."""

    def _autocast(self) -> Any:
        if not self.cfg.SOLVER.AMP.ENABLED:
            return nullcontext()
        kind = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, kind)

    def _log(
        self, losses: Mapping[str, Tensor], logits: Tensor, targets: Tensor, data_time: float
    ) -> None:
        storage = get_event_storage()
        storage.put_scalar("data_time", data_time)
        storage.put_scalar("epoch", self.progress * self.cfg.CLASSIFICATION.EPOCHS)
        accuracy = 100 * (logits.detach().argmax(1) == targets).float().mean()
        found = torch.stack([*(loss.detach().float() for loss in losses.values()), accuracy])
        *values, top1 = mean_over_processes(found).tolist()
        storage.put_scalar("total_loss", sum(values))
        if len(values) > 1:
            storage.put_scalars(**dict(zip(losses, values, strict=True)))
        storage.put_scalar("train/top1", top1)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Accuracy on the validation images, logged and returned for the event storage."""
        scores = evaluate(self.averaged_model, build_val_loader(self.cfg, self.val_data))
        logger.info(
            "validation: top-1 %.2f %%, top-5 %.2f %%, cross entropy %.4f on %d images",
            scores["top1"],
            scores["top5"],
            scores["loss"],
            len(self.val_data),
        )
        return {"val": scores}

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes ``results.json`` and sends it to W&B; rank 0 only."""
        if comm.is_main_process():
            logger.info("Wrote %s", write_results(self.output_dir, results))
            self.wandb_writer.log_summary(results)


def _steps(epochs: float, steps_per_epoch: float) -> int:
    """Iterations in a number of epochs; for 0, more than any training has."""
    return max(round(epochs * steps_per_epoch), 1) if epochs else 2**31
