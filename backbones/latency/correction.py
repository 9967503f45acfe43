"""From the sum of separately measured parts to the runtime of a whole network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ROUNDING = 1e-9
"""Relative rounding error of a coefficient that a fit left at its limit."""


@dataclass(frozen=True)
class LeastCosts:
    """The smallest costs of a table, at which a correction turns an order round first.

    Attributes:
        constant: runtime of the parts that are not searched.
        layer: of the fastest candidate of any layer.
        se: that squeeze-and-excitation adds to a candidate, where it adds least; 0 where it was
            measured to save time, or was not measured.
    """

    constant: float
    layer: float
    se: float


@dataclass(frozen=True)
class Correction:
    """What whole networks take beside the sum of their separately measured parts.

    A layer that runs alone pays for a call of its own and finds its input in another cache and
    layout. The corrected runtime of a network is ``intercept + scale · sum + per_layer · (layers
    not skipped) + per_se · (layers with SE)``: a sum over parts as well, so the search sees it.

    Attributes:
        intercept: in the table's unit.
        scale: of every part.
        per_layer: in the table's unit, for every searchable layer that is not skipped.
        per_se: in the table's unit, for every searchable layer with squeeze-and-excitation.
        networks: measured runtime of every network that it was fitted on, by the types of its
            searchable layers.
        error: mean absolute error over them in percent, each predicted by a fit to the others.
    """

    intercept: float
    scale: float
    per_layer: float
    per_se: float
    networks: Mapping[str, float] = field(hash=False)
    error: float

    def turns_round(self, least: LeastCosts) -> str:
        """Why more of a network would count as faster; empty where nothing does.

        Args:
            least: smallest costs of the table that is corrected.
        """
        constant = self.intercept + self.scale * least.constant
        layer = self.scale * least.layer + self.per_layer
        se = self.scale * least.se + self.per_se
        room = ROUNDING * (abs(self.per_layer) + abs(self.per_se))
        if self.scale <= 0:
            return f"scale is {self.scale:.4g}, so larger layers would not count as slower"
        if constant <= 0:
            return f"the parts that are not searched would take {constant:.4g}"
        if layer < -room:
            least_layer = f"a layer of {least.layer:.4g}"
            return f"per_layer is {self.per_layer:.4g}, so {least_layer} would save time"
        if se < -room:
            return f"per_se is {self.per_se:.4g}, so squeeze-and-excitation would save time"
        return ""
