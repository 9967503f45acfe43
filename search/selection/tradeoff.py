"""λ: the weight of log-runtime against cross entropy (Eq. 10), fixed or steered to a target."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class FixedTradeOff:
    """The paper's λ. It multiplies the natural logarithm of the runtime in the table's unit."""

    weight: float

    def update(self, runtime: float, progress: float) -> float:
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
    summed_error: float = 0.0
    first_runtime: float = math.nan
    updated: float = math.nan

    def budget(self, progress: float) -> float:
        """The runtime asked for at ``progress`` (0 to 1)."""
        fraction = min(max((progress - self.start) / (self.end - self.start), 0.0), 1.0)
        start = max(self.first_runtime, self.target)
        return start * (self.target / start) ** fraction

    def update(self, runtime: float, progress: float) -> float:
        """Returns λ for the next step.

        Args:
            runtime: of the supernet, with relaxed decisions, in the table's unit.
            progress: of the search, from 0 to 1.
        """
        if math.isnan(self.first_runtime):
            self.first_runtime = runtime
        error = math.log(runtime / self.budget(progress))
        if progress != self.updated:
            self.summed_error = max(self.summed_error + error, 0.0)
            self.updated = progress
        return max(self.proportional * error + self.integral * self.summed_error, 0.0)

    def state_dict(self) -> dict[str, float]:
        """What changes during a search."""
        return {"summed_error": self.summed_error, "first_runtime": self.first_runtime}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restores :meth:`state_dict`."""
        self.summed_error = state["summed_error"]
        self.first_runtime = state["first_runtime"]
        self.updated = math.nan
