"""Base trainer of the search and of the classifier: data, optimizer, EMA weights, evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
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

from backbones.exported import ARCHITECTURE_FILE
from detection.engine.accumulation import forward_passes, images_per_pass
from detection.engine.best import BestModel, check_best_keys
from detection.engine.checkpoint_files import number_to_keep
from detection.engine.compiled import compile_network, eagerly
from detection.engine.metrics import has_row
from detection.engine.nonfinite import SkipNonFinite, checked_limit
from detection.engine.precision import LRScheduler, Precision
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
    memory_layout,
)
from search.classification.optimizer import build_lr_scheduler, build_optimizer
from search.classification.pixels import expected_images, normalised

METRICS = ("val/top1", "val/top5", "val/loss")
"""What an evaluation finds, as ``SOLVER.BEST_METRIC`` names it."""

logger = logging.getLogger(__name__)


class ClassificationTrainer(RunTrainer):
    """Trains a model on classification images; what it minimises is :meth:`losses`.

    A step averages the gradients of ``SOLVER.ACCUMULATE`` batches.

    Args:
        cfg: the configuration, with the keys of ``add_search_config``.
        model: images (N, 3, H, W) → logits (N, C).
        checkpointables: further state of a subclass.

    Attributes:
        images: what the model expects.
        part: of ``results.json`` that a complete training writes, behind all its other files.
    """

    part: ClassVar[str]

    def __init__(
        self, cfg: CfgNode, model: nn.Module, checkpointables: Mapping[str, Any] | None = None
    ) -> None:
        self.cfg = cfg
        self.device = torch.device(cfg.MODEL.DEVICE)
        self.precision = Precision.of(cfg)
        self.images = expected_images(model)
        self.train_data, self.val_data = self.datasets()
        images_per_pass(cfg)  # refuses what cannot be divided
        steps_per_epoch = max(len(self.train_data) / cfg.SOLVER.IMS_PER_BATCH, 1.0)
        max_iter = _steps(cfg.CLASSIFICATION.EPOCHS, steps_per_epoch)
        model = model.to(self.device).to(memory_format=memory_layout(cfg)).train()
        self.unwrapped = model
        self.optimizer = build_optimizer(cfg, model)
        decay = cfg.CLASSIFICATION.EMA_DECAY
        # the warm-up of the decay lets short runs average over their own length
        self.ema = ModelEmaV3(model, decay=decay, use_warmup=True) if decay else None
        self.scaler = self.precision.scaler()
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
        self.skipping = SkipNonFinite(checked_limit(cfg), self.model, self.optimizer)
        self.register_hooks(
            [
                self.skipping,
                LRScheduler(self.scaler, self.optimizer, scheduler),
                hooks.EvalHook(period, eagerly(self.evaluate)),
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
            dataset.check(self.cfg.DATALOADER.MAX_UNREADABLE_IMAGES)
        counts = len(train), len(val), len(train.classes)
        logger.info("Training on %d images, validation on %d, of %d classes", *counts)
        return train, val

    @property
    def averaged_model(self) -> nn.Module:
        """The model to evaluate and export: the averaged one where weights are averaged."""
        return self.ema.module if self.ema else self.unwrapped

    @property
    def progress(self) -> float:
        """Part of the training that is done, from 0 to 1, without steps that were skipped."""
        return (self.iter - self.scaler.skipped) / self.max_iter

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
        if self.cfg.SOLVER.COMPILE:
            compile_network(self.unwrapped)
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
        self.optimizer.zero_grad(set_to_none=True)
        figures: list[dict[str, Tensor]] = []
        data_time = 0.0
        for _ in forward_passes(self.model, self.cfg.SOLVER.ACCUMULATE):
            start = time.perf_counter()
            images, targets = next(self._batches)
            data_time += time.perf_counter() - start
            images = images.to(self.device, non_blocking=True)
            images = normalised(images, self.images)
            targets = targets.to(self.device, non_blocking=True)
            losses, logits = self.backward(images, targets)
            figures.append({**losses, "train/top1": _accuracy(logits, targets)})
        self.after_backward()
        self.scaler.take(self.optimizer)
        if self.ema and self.scaler.taken:
            self.ema.update(self.unwrapped, step=self.iter - self.scaler.skipped)
        if not self.skipping.bad:
            self._log(figures, data_time)

    def backward(self, images: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Adds the gradients of the losses on a batch to those of the weights.

        A subclass can sum those of several networks in one set of weights.

        Args:
            images: (N, 3, H, W).
            targets: (N,) class indices.

        Returns:
            The losses, and the (N, C) logits that they are of.
        """
        logits = self._forward(images)
        losses = self.losses(logits.float(), targets)
        total = self.skipping.total(losses, lambda: self._forward(images))
        self.scaler.scale(total / self.cfg.SOLVER.ACCUMULATE).backward()
        return losses, logits

    def _forward(self, images: Tensor) -> Tensor:
        with self.precision.autocast():
            logits: Tensor = self.model(images)
        return logits

    def after_backward(self) -> None:
        """Called between backward pass and optimizer step; a subclass can clear gradients here."""

    def _log(self, figures: Sequence[Mapping[str, Tensor]], data_time: float) -> None:
        """Means over forward passes and processes: of the losses, and last the accuracy."""
        storage = get_event_storage()
        storage.put_scalar("data_time", data_time)
        storage.put_scalar("epoch", self.progress * self.cfg.CLASSIFICATION.EPOCHS)
        passes = [torch.stack([value.detach().float() for value in f.values()]) for f in figures]
        *values, top1 = mean_over_processes(torch.stack(passes).mean(0)).unbind()
        storage.put_scalar("total_loss", torch.stack(values).sum())
        if len(values) > 1:
            storage.put_scalars(**dict(zip(list(figures[0])[:-1], values, strict=True)))
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


def _accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Top-1 in percent."""
    return 100 * (logits.detach().argmax(1) == targets).float().mean()


def _steps(epochs: float, steps_per_epoch: float) -> int:
    """Iterations in a number of epochs; for 0, more than any training has."""
    return max(round(epochs * steps_per_epoch), 1) if epochs else 2**31
