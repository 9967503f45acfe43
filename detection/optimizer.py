"""The optimizer of a detector, and parameters that have a learning rate of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from detectron2 import solver
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn

from backbones.errors import UserError


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Detectron2's SGD, or AdamW with the same treatment of norms, biases and clipping.

    Args:
        cfg: the whole configuration. ``SOLVER.BACKBONE_LR_MULT`` is a factor on the rates of
            ``model.backbone``, and below a pyramid on those of its ``bottom_up`` alone.
        model: the detector.

    Raises:
        UserError: if that factor is set, and the model has no ``backbone``.
    """
    node = cfg.SOLVER
    if node.OPTIMIZER == "SGD":
        optimizer = solver.build_optimizer(cfg, model)
    else:
        parameters = get_default_optimizer_params(
            model,
            base_lr=node.BASE_LR,
            weight_decay=node.WEIGHT_DECAY,
            weight_decay_norm=node.WEIGHT_DECAY_NORM,
            bias_lr_factor=node.BIAS_LR_FACTOR,
            weight_decay_bias=node.WEIGHT_DECAY_BIAS,
        )
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(parameters, lr=node.BASE_LR)
    if node.BACKBONE_LR_MULT != 1:
        for group in set_apart(optimizer, _backbone(cfg, model).parameters()):
            optimizer.add_param_group({**group, "lr": group["lr"] * node.BACKBONE_LR_MULT})
    return cast(torch.optim.Optimizer, optimizer)


def set_apart(
    optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]
) -> list[dict[str, Any]]:
    """Takes parameters out of an optimizer that has not made a step.

    Returns:
        For each group of the optimizer that had some of them, a group of these with its options.
    """
    apart = {id(parameter) for parameter in parameters}
    taken = []
    for group in optimizer.param_groups:
        if moved := [value for value in group["params"] if id(value) in apart]:
            taken.append({**group, "params": moved})
        group["params"] = [value for value in group["params"] if id(value) not in apart]
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]
    return taken


def _backbone(cfg: CfgNode, model: nn.Module) -> nn.Module:
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise UserError(
            f"SOLVER.BACKBONE_LR_MULT is {cfg.SOLVER.BACKBONE_LR_MULT}, but the model "
            f"'{cfg.MODEL.META_ARCHITECTURE}' has no backbone; set it to 1.0"
        )
    return cast(nn.Module, getattr(backbone, "bottom_up", backbone))
