"""One optimizer for weights and thresholds (Eq. 9), and its learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from detectron2.solver.lr_scheduler import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, ParamScheduler
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from torch import nn

from backbones.errors import UserError
from detection.engine.fused import keep_update_options, update_options
from detection.engine.precision import Precision
from search.supernets.one_shot import DECISION_MODULES

MNASNET_DECAY = 0.97
MNASNET_DECAY_EPOCHS = 2.4


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    """Weights with decay; norms and biases, and thresholds, without it.

    Decay on thresholds or norms would pull decisions around by itself.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    thresholds: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.partition(".")[0] in DECISION_MODULES:
            thresholds.append(parameter)
        else:
            (plain if parameter.dim() == 1 else decayed).append(parameter)
    base_lr, decay = cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY
    groups: list[dict[str, Any]] = [
        {"params": decayed, "lr": base_lr, "weight_decay": decay},
        {"params": plain, "lr": base_lr, "weight_decay": cfg.SOLVER.WEIGHT_DECAY_NORM},
    ]
    if thresholds:
        lr = base_lr * cfg.SEARCH.THRESHOLD_LR_MULT
        groups.append({"params": thresholds, "lr": lr, "weight_decay": 0.0})
    return groups


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Timm's optimizer of the name ``SOLVER.OPTIMIZER``, fused on a GPU where PyTorch can.

    Raises:
        UserError: if timm has none of that name.
    """
    name = cfg.SOLVER.OPTIMIZER
    if name not in list_optimizers():
        raise UserError(
            f"unknown SOLVER.OPTIMIZER '{name}'; expected one of timm's: 'rmsproptf', 'sgd', "
            "'adamw', …"
        )
    options: dict[str, Any] = {"eps": cfg.SOLVER.OPTIMIZER_EPS} if name != "sgd" else {}
    if name == "rmsproptf":
        options["alpha"] = 0.9  # MnasNet's decay of the squared gradients
    kind = get_optimizer_class(name, bind_defaults=False)
    options.update(update_options(kind, Precision.of(cfg)))
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        parameter_groups(cfg, model),
        opt=name,
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=0.0,
        momentum=cfg.SOLVER.MOMENTUM,
        **options,
    )
    return keep_update_options(optimizer)


class StaircaseDecay(ParamScheduler):
    """MnasNet's decay: × 0.97 every 2.4 epochs, in steps.

    fvcore's own steps have no value for the end of the training, which Detectron2's scheduler asks
    for after the last iteration.

    Args:
        epochs: of the whole training.
    """

    def __init__(self, epochs: float) -> None:
        self._decays = epochs / MNASNET_DECAY_EPOCHS

    def __call__(self, where: float) -> float:
        """The factor at progress ``where``, from 0 to 1."""
        return MNASNET_DECAY ** math.floor(where * self._decays + self.WHERE_EPSILON)


def schedule(cfg: CfgNode) -> ParamScheduler:
    """The factor on every learning rate as a function of progress (0 to 1).

    Raises:
        UserError: if ``SOLVER.DECAY`` is unknown, or the warm-up is not shorter than the training.
    """
    epochs = cfg.CLASSIFICATION.EPOCHS
    if cfg.SOLVER.DECAY == "exponential":
        decay: ParamScheduler = StaircaseDecay(epochs)
    elif cfg.SOLVER.DECAY == "cosine":
        decay = CosineParamScheduler(1.0, 0.0)
    else:
        raise UserError(
            f"unknown SOLVER.DECAY '{cfg.SOLVER.DECAY}'; expected 'exponential' or 'cosine'"
        )
    warmup = cfg.SOLVER.WARMUP_EPOCHS / epochs
    if not 0 <= warmup < 1:
        raise UserError(
            f"SOLVER.WARMUP_EPOCHS is {cfg.SOLVER.WARMUP_EPOCHS:g}; expected less than "
            f"CLASSIFICATION.EPOCHS, which is {epochs:g}"
        )
    if not warmup:
        return decay
    return WarmupParamScheduler(decay, cfg.SOLVER.WARMUP_FACTOR, warmup, "linear")


def build_lr_scheduler(
    cfg: CfgNode, optimizer: torch.optim.Optimizer, max_iter: int
) -> LRMultiplier:
    """Detectron2's scheduler that applies :func:`schedule`."""
    return LRMultiplier(optimizer, schedule(cfg), max_iter)
