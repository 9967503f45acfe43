"""The classifier's training step beside timm's own, on the same network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, NativeScaler

from backbones.scratch import scratch_folder
from detection.engine.provenance import provenance
from search.classification.classifier import ClassifierTrainer
from search.config import load_search_config
from search.studies.benchmarks.costs import (
    Case,
    Step,
    check_counts,
    check_device,
    costs,
    precision_of,
    precision_options,
    with_ratios,
)
from search.studies.markdown import beside, table

CONFIG = "classification/spnas_imagenet.yaml"
NETWORK = "spnasnet_100"
"""timm's name of ``spnas_100``, the network of that configuration."""

OURS, THEIRS = "spnas", "timm"
LABELS = {OURS: "this project's trainer", THEIRS: "timm's training step"}


def classifier_config(device: str, batch: int, size: int, precision: str) -> CfgNode:
    """The classifier's recipe for ImageNet, at another batch and in one of ``PRECISIONS``.

    Args:
        device: ``cpu`` or ``cuda``.
        batch: images per step.
        size: side of the images in pixels.
        precision: one of ``PRECISIONS``.
    """
    options = [
        *("MODEL.DEVICE", device, "SOLVER.IMS_PER_BATCH", str(batch)),
        *("CLASSIFICATION.INPUT_SIZE", str(size), "WANDB.ENABLED", "False"),
        *precision_options(precision),
    ]
    return load_search_config(CONFIG, options)


def make_our_step(device: str, batch: int, size: int, precision: str, folder: Path) -> Step:
    """A step of the trainer, with all that it does: losses, averaged weights, what it logs.

    Args:
        device: ``cpu`` or ``cuda``.
        batch: images per step, made up and on the device already.
        size: side of the images in pixels.
        precision: one of ``PRECISIONS``.
        folder: that the trainer may write to.
    """
    cfg = classifier_config(device, batch, size, precision)
    cfg.defrost()
    cfg.OUTPUT_DIR = str(folder)
    torch.manual_seed(0)
    trainer = _OneBatch(cfg)
    trainer.storage = EventStorage(0)
    trainer.iter = trainer.start_iter = 0
    trainer._batches = trainer.train_batches(0)
    trainer.model.train()

    def step() -> None:
        with trainer.storage:
            trainer.run_step()
            trainer.storage.step()
        trainer.iter += 1

    return step


class _OneBatch(ClassifierTrainer):
    """Trains on one batch over and over, which costs no reading."""

    def datasets(self) -> tuple[Any, Any]:
        """As many images as ImageNet has, of which none is read."""
        return range(1_281_167), range(50_000)

    def train_batches(self, start_iter: int) -> Iterator[Any]:
        """The same images and classes, on the device."""
        return itertools.repeat(_batch(self.cfg))


def make_timm_step(device: str, batch: int, size: int, precision: str) -> Step:
    """A step as in timm's ``train.py`` (``train_one_epoch``), by timm's own parts.

    The network, the optimizer with its settings, the label smoothing, the averaged weights, the
    memory layout and the mixed precision are those of the classifier's recipe.

    Args:
        device: ``cpu`` or ``cuda``.
        batch: images per step, made-up bytes on the device already.
        size: side of the images in pixels.
        precision: one of ``PRECISIONS``.
    """
    cfg = classifier_config(device, batch, size, precision)
    torch.manual_seed(0)
    node = cfg.CLASSIFICATION
    model = timm.create_model(NETWORK, num_classes=node.NUM_CLASSES, drop_rate=node.DROP_RATE)
    model = model.to(device).to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(
        model,
        opt=cfg.SOLVER.OPTIMIZER,
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        momentum=cfg.SOLVER.MOMENTUM,
        eps=cfg.SOLVER.OPTIMIZER_EPS,
        alpha=0.9,
    )
    loss_of = LabelSmoothingCrossEntropy(node.LABEL_SMOOTHING).to(device)
    average = ModelEmaV3(model, decay=node.EMA_DECAY, use_warmup=True)
    computed = precision_of(precision, device)
    scale = NativeScaler(device) if computed.dtype is torch.float16 else None
    images, targets = _batch(cfg)
    mean, std = (
        torch.tensor([255 * figure for figure in figures], device=device).view(1, 3, 1, 1)
        for figures in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    count = itertools.count()

    def step() -> None:
        pixels = images.float().sub_(mean).div_(std)  # as timm's PrefetchLoader
        optimizer.zero_grad()
        with computed.autocast():
            loss = loss_of(model(pixels), targets)
        if scale:
            scale(loss, optimizer)
        else:
            loss.backward()
            optimizer.step()
        average.update(model, step=next(count))

    return step


def _batch(cfg: CfgNode) -> tuple[torch.Tensor, torch.Tensor]:
    device, batch, size = cfg.MODEL.DEVICE, cfg.SOLVER.IMS_PER_BATCH, cfg.CLASSIFICATION.INPUT_SIZE
    images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    targets = torch.randint(cfg.CLASSIFICATION.NUM_CLASSES, (batch,), device=device)
    return images.to(memory_format=torch.channels_last), targets


def classifier_costs(
    device: str, batch: int, size: int, precision: str, repeats: int
) -> dict[str, Any]:
    """Time and memory of both steps, in turns, and the ratios to timm's.

    Args:
        device: ``cpu`` or ``cuda``.
        batch: images per step.
        size: side of the images in pixels.
        precision: one of ``PRECISIONS``.
        repeats: timed rounds.
    """
    setting = (device, batch, size, precision)
    with scratch_folder("classifier-step") as folder:
        cases = [
            Case(OURS, partial(make_our_step, *setting, folder)),
            Case(THEIRS, partial(make_timm_step, *setting)),
        ]
        return with_ratios(costs(cases, device, repeats), THEIRS)


def classifier_step_report(
    device: str, batch: int, size: int, precision: str, repeats: int
) -> dict[str, Any]:
    """:func:`classifier_costs`, with the setting."""
    check_device(device)
    check_counts(batch=batch, size=size, repeats=repeats)
    setting = {"batch": batch, "size": size, "precision": precision, "repeats": repeats}
    found = classifier_costs(device, batch, size, precision, repeats)
    return {**provenance(device), **setting, "steps": found}


def classifier_step_section(study: Mapping[str, Any]) -> str:
    """A training step of the classifier beside timm's."""
    setting = (
        f"training step of `spnas_100`, {study['size']} px, batch {study['batch']}, "
        f"{study['precision']}"
    )
    rows = [
        [label, f"{1000 * cost['seconds']:.0f} ms", f"{cost['time_ratio']:.2f}"]
        for label, cost in ((LABELS[name], cost) for name, cost in study["steps"].items())
    ]
    return f"{table([setting, 'time', 'ratio'], rows)}\n\n{beside(study)}"
