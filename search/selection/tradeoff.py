"""λ: the weight of log-runtime against cross entropy (Eq. 10), fixed or steered to a target."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class FixedTradeOff:
    """The paper's λ. It multiplies the natural logarithm of the runtime in the table's unit."""

    weight: float

    def update(self, runtime: Tensor, progress: float) -> float:
        """Returns λ, whatever the runtime."""
        return self.weight

    def state_dict(self) -> dict[str, float]:
        """Nothing changes, nothing is kept."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Nothing to restore."""


@dataclass
class TargetTradeOff:
    """λ as a controller that leads the supernet's runtime down to a target.

    The budget falls from the first runtime to the target, geometrically in ``progress``, and λ
    answers to the log-ratio e of runtime to budget: λ = proportional · e + integral · Σe, at
    least 0. A falling budget keeps λ from winding up while the thresholds lag behind it, which is
    what makes a plain dual ascent overshoot.

    It lives where the runtime is computed: a step does not wait for it.

    Attributes:
        target: runtime in the table's unit.
        start: progress at which the budget starts to fall.
        end: progress at which the budget is the target.
        proportional: gain of the present error.
        integral: gain of the summed error, per step.
        updated: progress of the last update: the forward passes of a step count as one.
    """

    target: float
    start: float = 0.1
    end: float = 0.7
    proportional: float = 10.0
    integral: float = 0.1
    summed_error: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    first_runtime: Tensor | None = None
    updated: float = math.nan

    def budget(self, progress: float) -> Tensor:
        """() the runtime asked for at ``progress`` (0 to 1), after the first update."""
        assert self.first_runtime is not None
        fraction = min(max((progress - self.start) / (self.end - self.start), 0.0), 1.0)
        start = self.first_runtime.clamp(min=self.target)
        return start * (self.target / start) ** fraction

    def update(self, runtime: Tensor, progress: float) -> Tensor:
        """Returns () λ for the next step.

        Args:
            runtime: () of the supernet, with relaxed decisions, in the table's unit.
            progress: of the search, from 0 to 1.
        """
        runtime = runtime.detach().double()
        first = runtime if self.first_runtime is None else self.first_runtime
        self.first_runtime = first.to(runtime.device)
        error = (runtime / self.budget(progress)).log()
        if progress != self.updated:
            summed = self.summed_error.to(runtime.device) + error
            self.summed_error, self.updated = summed.clamp(min=0), progress
        return (self.proportional * error + self.integral * self.summed_error).clamp(min=0)

    def state_dict(self) -> dict[str, float]:
        """What changes during a search."""
        first = math.nan if self.first_runtime is None else float(self.first_runtime)
        return {"summed_error": float(self.summed_error), "first_runtime": first}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restores :meth:`state_dict`."""
        first = torch.tensor(state["first_runtime"], dtype=torch.float64)
        self.first_runtime = None if first.isnan() else first
        self.summed_error = torch.tensor(state["summed_error"], dtype=torch.float64)
        self.updated = math.nan
