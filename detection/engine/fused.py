"""Optimizers that update all weights in one kernel, where PyTorch has one for the device."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import SGD, Optimizer

from detection.engine.precision import Precision


def update_options(kind: Callable[..., Optimizer], precision: Precision) -> dict[str, bool]:
    """How an optimizer is to update its weights, as arguments of its constructor.

    On a GPU fused, where PyTorch offers that; an optimizer without it takes ``foreach`` there by
    itself, if it can. On a CPU, where launching costs little, as ever.

    Args:
        kind: class of the optimizer.
        precision: of the training.
    """
    if precision.device != "cuda" or "fused" not in inspect.signature(kind).parameters:
        return {}
    if precision.dtype is torch.float16 and isinstance(kind, type) and issubclass(kind, SGD):
        return {}  # where loss scaling skips the first step, fused momentum starts uninitialised
    return {"fused": True}


def keep_update_options(optimizer: Optimizer) -> Optimizer:
    """Has an optimizer update as it was built to, whatever the device of a checkpoint did.

    Returns:
        The optimizer itself.
    """
    optimizer.register_load_state_dict_pre_hook(_with_own_options)
    return optimizer


def _with_own_options(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
    saved, present = state["param_groups"], optimizer.param_groups
    if len(saved) != len(present):
        return None  # PyTorch says so
    names = ("fused", "foreach")
    own = [{name: group[name] for name in names if name in group} for group in present]
    groups = [{**before, **now} for before, now in zip(saved, own, strict=True)]
    return {**state, "param_groups": groups}
