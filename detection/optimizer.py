"""The optimizer of a detector, and parameters that have a learning rate of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn

from backbones.errors import UserError
from detection.engine.fused import keep_update_options, update_options
from detection.engine.precision import Precision

_UNSET = {"BACKBONE_LR_MULT": 1.0, "COMPILE": False}
"""Keys of ``cfg.SOLVER`` for the backbone, at the values that ask nothing of it."""


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Detectron2's SGD, or AdamW with the same treatment of norms, biases and clipping.

    Both are fused on a GPU, which Detectron2's own is not.

    Args:
        cfg: the whole configuration. ``SOLVER.BACKBONE_LR_MULT`` is a factor on the rates of
            ``model.backbone``, and below a pyramid on those of its ``bottom_up`` alone.
        model: the detector.

    Raises:
        UserError: if that factor is set, and the model has no ``backbone``.
    """
    node = cfg.SOLVER
    decay = {"weight_decay": node.WEIGHT_DECAY}
    momentum = {"momentum": node.MOMENTUM, "nesterov": node.NESTEROV}
    kind: type[torch.optim.Optimizer]
    if node.OPTIMIZER == "SGD":  # the groups of Detectron2's, for its checkpoints
        kind, of_groups, of_all = torch.optim.SGD, {}, {**decay, **momentum}
    else:
        kind, of_groups, of_all = torch.optim.AdamW, decay, {}
    parameters = get_default_optimizer_params(
        model,
        base_lr=node.BASE_LR,
        weight_decay_norm=node.WEIGHT_DECAY_NORM,
        bias_lr_factor=node.BIAS_LR_FACTOR,
        weight_decay_bias=node.WEIGHT_DECAY_BIAS,
        **of_groups,
    )
    optimizer: torch.optim.Optimizer = maybe_add_gradient_clipping(cfg, kind)(
        parameters, lr=node.BASE_LR, **of_all, **update_options(kind, Precision.of(cfg))
    )
    if node.BACKBONE_LR_MULT != 1:
        for group in set_apart(optimizer, trunk_of(cfg, model, "BACKBONE_LR_MULT").parameters()):
            optimizer.add_param_group({**group, "lr": group["lr"] * node.BACKBONE_LR_MULT})
    return keep_update_options(optimizer)


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


def trunk_of(cfg: CfgNode, model: nn.Module, key: str) -> nn.Module:
    """The backbone of a detector, without the pyramid on it.

    Args:
        cfg: the whole configuration.
        model: the detector.
        key: of ``cfg.SOLVER``, which is for the backbone.

    Raises:
        UserError: if the model has none.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise UserError(
            f"SOLVER.{key} is {cfg.SOLVER[key]}, but the model '{cfg.MODEL.META_ARCHITECTURE}' "
            f"has no backbone; set it to {_UNSET[key]}"
        )
    return cast(nn.Module, getattr(backbone, "bottom_up", backbone))
