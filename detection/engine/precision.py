"""Mixed precision: what a training step computes in, and the steps that loss scaling skips."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, hooks
from torch import nn

from backbones.errors import UserError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""The types of ``SOLVER.AMP.DTYPE``, beside ``auto``."""

_AMPERE = (8, 0)
"""Compute capability from which on NVIDIA's GPUs compute in bfloat16."""

_MOST_SKIPPED = 100
"""Steps in a row whose gradients are infinite at any scale: 2⁻¹⁰⁰ of the first one."""


@dataclass(frozen=True)
class Precision:
    """What the forward pass of a training step computes in.

    Attributes:
        device: type of the training's device: ``cuda``, ``cpu``, …
        dtype: of its convolutions and matrix products; None is single precision throughout.
    """

    device: str
    dtype: torch.dtype | None = None

    @classmethod
    def of(cls, cfg: CfgNode) -> Precision:
        """As ``SOLVER.AMP`` says, on ``MODEL.DEVICE``.

        ``auto`` is single precision away from GPUs: gradients of depthwise convolutions in bfloat16
        are slow on a CPU (``docs/runs.md``).

        Raises:
            UserError: if the type is unknown, or the device does not compute in it.
        """
        node, device = cfg.SOLVER.AMP, torch.device(cfg.MODEL.DEVICE).type
        name = node.DTYPE
        if name not in ("auto", *DTYPES):
            raise UserError(f"SOLVER.AMP.DTYPE is '{name}'; expected auto, {', '.join(DTYPES)}")
        if not node.ENABLED or (name == "auto" and device != "cuda"):
            return cls(device)
        if name == "auto":
            name = "float16"
        if name == "float16" and device != "cuda":
            raise UserError(
                f"SOLVER.AMP.DTYPE is 'float16', but MODEL.DEVICE is '{cfg.MODEL.DEVICE}'; "
                "float16 needs a GPU: set it to auto or bfloat16, or SOLVER.AMP.ENABLED to False"
            )
        if name == "bfloat16" and device == "cuda" and torch.cuda.is_available():
            _check_bfloat16(torch.device(cfg.MODEL.DEVICE))
        return cls(device, DTYPES[name])

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        return torch.autocast(self.device, self.dtype) if self.dtype else nullcontext()

    def scaler(self) -> StepScaler:
        """Takes the optimizer's steps; only float16's range is so small that losses are scaled."""
        return StepScaler(self.device, enabled=self.dtype is torch.float16)


def _check_bfloat16(device: torch.device) -> None:
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _AMPERE:
        raise UserError(
            f"SOLVER.AMP.DTYPE is 'bfloat16', which {torch.cuda.get_device_name(device)} (compute "
            f"capability {capability[0]}.{capability[1]}) does not compute in; expected 8.0 or "
            "more: set it to float16"
        )


class StepScaler(torch.amp.GradScaler):
    """PyTorch's gradient scaler, which also counts the steps that it skips.

    Where it is not enabled it takes every step as it comes. Where it is, it reads the scale on the
    host, since schedules are there: a step then waits for the device.

    Attributes:
        skipped: steps of the whole training whose gradients were infinite.
        taken: whether the last step was none of them.
    """

    def __init__(self, device: str, enabled: bool = True) -> None:
        super().__init__(device, enabled=enabled)
        self.skipped = 0
        self.taken = True
        self._in_a_row = 0

    def take(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer's step on the scaled gradients, unless one of them is infinite.

        Raises:
            UserError: if that many steps in a row were skipped that no scale can be the cause.
        """
        before = self.get_scale()
        if self.is_enabled():  # before the step: a fused one would clip scaled gradients
            self.unscale_(optimizer)
        self.step(optimizer)
        self.update()
        # the scale falls behind an infinite gradient, and only there
        self.taken = self.get_scale() >= before
        self.skipped += not self.taken
        self._in_a_row = 0 if self.taken else self._in_a_row + 1
        if self._in_a_row >= _MOST_SKIPPED:
            raise UserError(
                f"the gradients of {_MOST_SKIPPED} steps in a row are not finite in float16, at "
                "any scale of the loss; set SOLVER.AMP.DTYPE to bfloat16, or lower SOLVER.BASE_LR"
            )

    def state_dict(self) -> dict[str, Any]:
        """The scale, and the steps skipped; nothing where it is not enabled."""
        state = super().state_dict()
        return {**state, "skipped": self.skipped} if state else state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over :meth:`state_dict`, or what PyTorch's own wrote."""
        super().load_state_dict(dict(state_dict))
        self.skipped = state_dict.get("skipped", 0)


class LRScheduler(hooks.LRScheduler):
    """Detectron2's hook, which a skipped step does not move; its state has Detectron2's name.

    Args:
        scaler: which takes the steps.
        optimizer: None takes the trainer's.
        scheduler: None takes the trainer's.
    """

    def __init__(
        self,
        scaler: StepScaler,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Any = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self._scaler = scaler

    def after_step(self) -> None:
        """Logs the rate, and changes it for the next step."""
        storage = self.trainer.storage
        if self._scaler.is_enabled():
            storage.put_scalar("skipped_steps", self._scaler.skipped, smoothing_hint=False)
        if self._scaler.taken:
            super().after_step()
        else:
            rate = self._optimizer.param_groups[self._best_param_group_id]["lr"]
            storage.put_scalar("lr", rate, smoothing_hint=False)


class MixedPrecisionTrainer(AMPTrainer):
    """Detectron2's inner trainer with a scaler that counts, as far as it is a place for states.

    Its steps are those of :func:`~detection.engine.accumulation.detector_step`.

    Args:
        precision: of the forward pass.
        model: returns losses, or one.
        data_loader: endless batches.
        optimizer: of the model.
    """

    def __init__(
        self,
        precision: Precision,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        super().__init__(model, data_loader, optimizer, grad_scaler=precision.scaler())
