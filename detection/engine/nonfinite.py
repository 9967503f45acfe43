"""Steps whose loss or gradients are not finite: skipped and counted, and too many end the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor, nn
from torch.optim import Optimizer

from backbones.errors import UserError
from detection.engine.diagnosis import bad_gradient, first_nonfinite
from detection.engine.selection import Kept, tensors_of
from detection.engine.trainer import unwrap_ddp

_PERIOD = 20
"""Iterations between two looks at what a GPU has counted."""

logger = logging.getLogger(__name__)


class NonFiniteError(UserError, FloatingPointError):
    """A loss, or a gradient, is NaN or infinite once more than a run may have it."""


def checked_limit(cfg: CfgNode) -> int:
    """``SOLVER.MAX_NONFINITE``.

    Raises:
        UserError: if it is negative.
    """
    limit = int(cfg.SOLVER.MAX_NONFINITE)
    if limit < 0:
        raise UserError(
            f"SOLVER.MAX_NONFINITE is {limit}; expected a number of steps, or 0 to stop at the "
            "first one whose loss is not finite"
        )
    return limit


class SkipNonFinite(HookBase):
    """Skips steps whose loss or gradients are NaN or infinite, up to a limit.

    Such a step leaves weights, the optimizer's state and batch norm's statistics as they were. A
    loss that is not finite makes all gradients so, in all processes, as these add them up: they
    take the same decision without another word. Infinite gradients of a loss that was scaled for
    float16 are no fault: ``GradScaler`` skips them, and here only the losses count.

    A GPU decides by itself: it puts back what a bad step has changed, and the host learns of it at
    the next look. From then on the host reads every step, to know the batch and its layer when
    there are too many.

    Attributes:
        limit: steps that may be skipped.
        skipped: steps that were, in this process and in those before it.
        bad: whether the present step is one of them, as far as the host knows.
    """

    def __init__(self, limit: int, model: nn.Module, optimizer: Optimizer) -> None:
        """Registered before any hook that saves or logs.

        Args:
            limit: 0 stops at the first.
            model: in training, in ``DistributedDataParallel`` or not.
            optimizer: of its parameters.
        """
        self.limit, self.skipped, self.bad = limit, 0, False
        self._called, self._model, self._optimizer = model, unwrap_ddp(model), optimizer
        self._on_gpu = next(model.parameters()).device.type == "cuda"
        self._scaled = False
        self._statistics = Kept(
            buffer
            for name, buffer in self._model.named_buffers()
            if name.rpartition(".")[2].startswith(("running_", "num_batches_tracked"))
        )
        self._updated: Kept | None = None
        self._counted: Tensor | None = None
        self._handles: list[Any] = []
        self._start_step()

    def before_train(self) -> None:
        """Follows the optimizer, and Detectron2's trainer where it writes the losses."""
        scaler = getattr(self.trainer, "scaler", None)
        inner = getattr(self.trainer, "_trainer", None)
        if inner is not None:
            scaler = scaler or getattr(inner, "grad_scaler", None)
            inner._write_metrics = _tolerant(inner._write_metrics)
        self._scaled = scaler is not None and scaler.is_enabled()
        self._handles = [
            self._optimizer.register_step_pre_hook(self._before_update),
            self._optimizer.register_step_post_hook(self._after_update),
        ]

    def after_train(self) -> None:
        """Leaves the optimizer."""
        while self._handles:
            self._handles.pop().remove()

    def before_step(self) -> None:
        """Sets the statistics aside; of a detector, looks at the losses that it returns."""
        self._start_step()
        self._statistics.take()
        if hasattr(self.trainer, "_trainer"):
            self._handles.append(self._called.register_forward_hook(self._of_detector))

    def total(self, losses: Mapping[str, Tensor], forward: Callable[[], Any]) -> Tensor:
        """The sum of losses; one that is not finite has such gradients for all weights.

        Args:
            losses: scalars of one forward pass.
            forward: does that pass again.
        """
        total = torch.stack(list(losses.values())).sum()
        return total * self._factor(total, losses, forward)

    def after_step(self) -> None:
        """Counts, and lets the optimizer's next step be looked at."""
        if hasattr(self.trainer, "_trainer"):
            self._handles.pop().remove()
        if self._scaled:
            self._settle(self._sum_of_losses())
        if self._counted is not None and self._looks():
            self._look()
        if self.skipped:
            self.trainer.storage.put_scalar("nonfinite_steps", self.skipped, smoothing_hint=False)

    def state_dict(self) -> dict[str, Any]:
        """The steps skipped; nothing without any."""
        # of the first process, which is to know no more than the others, and to do what they do
        counted = 0 if self._counted is None else int(_read(self._counted))
        skipped = self.skipped + counted
        return {"skipped": skipped} if skipped else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what :meth:`state_dict` returned."""
        self.skipped = int(state["skipped"])

    def _start_step(self) -> None:
        self.bad = self._undecided = False
        self._total: Tensor | None = None
        self._passes: list[tuple[dict[str, Tensor], Callable[[], Any]]] = []

    def _of_detector(self, detector: nn.Module, inputs: tuple[Any, ...], found: Any) -> Any:
        losses = {"total_loss": found} if isinstance(found, Tensor) else found
        kind = next(iter(losses.values())).device.type
        half, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

        def again() -> None:
            with torch.autocast(kind, dtype, enabled=half):
                self._model(*inputs)

        total = torch.stack([loss.detach() for loss in losses.values()]).sum()
        factor = self._factor(total, losses, again)
        if isinstance(found, Tensor):
            return found * factor
        (name, first), *others = losses.items()
        return {name: first * factor, **dict(others)}

    def _factor(
        self, total: Tensor, losses: Mapping[str, Tensor], forward: Callable[[], Any]
    ) -> Tensor:
        """1, or NaN where a loss is not finite: ∞ - ∞ is NaN."""
        total = total.detach()
        nothing = total - total
        self._total = nothing if self._total is None else self._total + nothing
        if self._reads():
            named = {name: loss.detach() for name, loss in losses.items()}
            self._passes.append((named, forward))
        return 1 + nothing

    def _reads(self) -> bool:
        """Whether the host reads every step."""
        return not self._on_gpu or self.skipped >= min(self.limit, 1)

    def _looks(self) -> bool:
        finished = self.trainer.iter + 1
        return finished % _PERIOD == 0 or finished >= self.trainer.max_iter

    def _sum_of_losses(self) -> Tensor:
        """0, or NaN where a loss of a process is not finite."""
        assert self._total is not None
        if comm.get_world_size() > 1:
            dist.all_reduce(self._total)
        return self._total

    def _before_update(self, optimizer: Optimizer, *_: Any) -> None:
        # a scaler has come before; and Detectron2's clipping is a step around the step
        if self._scaled or self._undecided:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        parameters = [parameter for parameter in parameters if parameter.grad is not None]
        if not parameters:
            return
        gradients = [parameter.grad for parameter in parameters]
        known = self._settle(torch.stack(torch._foreach_norm(gradients, 1)).sum())
        if known is None:
            tensors = list(tensors_of(optimizer, parameters))
            if self._updated is None or not self._updated.holds(tensors):
                self._updated = Kept(tensors)
            self._updated.take()
            self._undecided = True
        elif known:
            optimizer.zero_grad(set_to_none=True)  # what has no gradient is left alone

    def _after_update(self, *_: Any) -> None:
        if self._undecided and self._updated is not None:
            self._updated.put_back(self._nonfinite)

    def _settle(self, figure: Tensor) -> bool | None:
        """Undoes what a step with a figure that is not finite did to the statistics.

        Returns:
            Whether it is such a step; None where the host does not know.

        Raises:
            NonFiniteError: if there were too many.
        """
        self._nonfinite = ~figure.isfinite()
        if not self._reads() and not self._is_fresh():
            self._statistics.put_back(self._nonfinite)
            counted = self._nonfinite.long()
            self._counted = counted if self._counted is None else self._counted + counted
            return None
        self.bad = _read(self._nonfinite)
        if self.bad:
            self._skip()
        return self.bad

    def _is_fresh(self) -> bool:
        """Whether the optimizer will make a part of its state in this step."""
        state = self._optimizer.state
        groups = self._optimizer.param_groups
        return any(p.grad is not None and p not in state for g in groups for p in g["params"])

    def _skip(self) -> None:
        if self.skipped >= self.limit:
            self._stop()
        self.skipped += 1
        self._statistics.put_back()
        logger.warning(
            "Iteration %d: %s, the step is skipped (%d of at most %d)",
            *(self.trainer.iter, self._bad_losses() or "its gradients are not finite"),
            *(self.skipped, self.limit),
        )

    def _look(self) -> None:
        """Reads what the device has counted."""
        assert self._counted is not None
        found, self._counted = int(_read(self._counted)), None
        self.skipped += found
        if found:
            logger.warning(
                "%d of the last steps were not finite and are skipped, of at most %d in all",
                *(found, self.limit),
            )

    def _bad_losses(self) -> str:
        values = [(n, _read(loss)) for losses, _ in self._passes for n, loss in losses.items()]
        return ", ".join(f"{name} is {value:g}" for name, value in values if value - value != 0)

    def _stop(self) -> None:
        """Raises in all processes what the first of them says that has a reason of its own."""
        losses = self._bad_losses()
        place = ""
        for named, forward in self._passes:
            if not place and any(_read(loss - loss) != 0 for loss in named.values()):
                place = first_nonfinite(self._model, forward)
        if not losses:
            place = bad_gradient(self._model)
        reasons = comm.all_gather((losses, place))
        losses, place = next((reason for reason in reasons if reason[0]), reasons[0])
        raise NonFiniteError(
            f"the loss or a gradient is not finite at iteration {self.trainer.iter}, and "
            f"{self.skipped} steps before it were skipped (SOLVER.MAX_NONFINITE {self.limit}): "
            f"{losses + ', ' if losses else ''}{place}. Lower SOLVER.BASE_LR, lengthen the "
            "warm-up, or raise that key; --resume continues from the last checkpoint"
        )


def _read(value: Tensor) -> Any:
    """A scalar on the host."""
    return value.detach().cpu().numpy().item()


def _tolerant(write: Callable[..., None]) -> Callable[..., None]:
    """Detectron2's way to write losses, which ends the first process where one is not finite."""

    def written(*args: Any, **kwargs: Any) -> None:
        with suppress(FloatingPointError):
            write(*args, **kwargs)

    return written
