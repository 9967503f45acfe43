"""Decisions of a searchable layer as weights of its options."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search.space import Candidate, Choice, SearchLayer, SearchSpace


@dataclass(frozen=True)
class Decision:
    """How much of each option one layer uses.

    The weights of each group of options sum to 1. They are 0 or 1 where the decision is hard
    (Eq. 1-4) and anything between where it is relaxed (Eq. 18); gradients flow either way.

    Attributes:
        kernel: (K,) weight of every kernel size.
        expansion: (E,) weight of every expansion ratio.
        se: (S,) weight of every SE ratio.
        keep: () weight of the layer against the skip-op; 1 where it cannot be skipped.
    """

    kernel: Tensor
    expansion: Tensor
    se: Tensor
    keep: Tensor

    def choice(self) -> Choice:
        """The most weighted candidate."""
        if self.keep < 0.5:
            return None
        return Candidate(*(int(w.argmax()) for w in (self.kernel, self.expansion, self.se)))

    def to(self, device: torch.device) -> Decision:
        """The same on a device."""
        return Decision(*(weight.to(device) for weight in vars(self).values()))

    def log_weights(self, space: SearchSpace, layer: SearchLayer) -> Tensor:
        """(number of choices,) log of every choice's weight, as a product of its options'."""
        kernel, expansion, se, keep = map(_log, (self.kernel, self.expansion, self.se, self.keep))
        skip = _log(1 - self.keep)
        return torch.stack(
            [
                skip if c is None else keep + kernel[c.kernel] + expansion[c.expansion] + se[c.se]
                for c in space.choices(layer)
            ]
        )

    def log_odds(self, space: SearchSpace, layer: SearchLayer) -> Tensor:
        """(number of choices,) log-odds of every choice: the sum of what it switches on.

        Every option counts by its odds against the smallest one, and the layer itself by its
        odds against the skip-op, which counts 0. By :meth:`log_weights`, a skipped layer has one
        factor and any other choice four, so that dropping a layer is almost as likely as
        shrinking its kernel; here it gives up everything that the layer has.
        """
        kernel, expansion, se = (
            _log(w) - _log(w[0]) for w in (self.kernel, self.expansion, self.se)
        )
        keep = (
            _log(self.keep) - _log(1 - self.keep)
            if layer.droppable
            else torch.zeros_like(self.keep)
        )
        return torch.stack(
            [
                torch.zeros_like(keep)
                if c is None
                else keep + kernel[c.kernel] + expansion[c.expansion] + se[c.se]
                for c in space.choices(layer)
            ]
        )


@dataclass(frozen=True)
class PathWeights:
    """What a multi-path layer has decided: one weight per choice (α of Eq. 6).

    Attributes:
        paths: (number of choices,) weights that sum to 1, in the order of ``space.choices``.
    """

    paths: Tensor

    def log_weights(self, space: SearchSpace, layer: SearchLayer) -> Tensor:
        """(number of choices,) log of every choice's weight."""
        return _log(self.paths)

    def log_odds(self, space: SearchSpace, layer: SearchLayer) -> Tensor:
        """The same: there are no options that choices would share."""
        return self.log_weights(space, layer)


LayerDecision = Decision | PathWeights


def _log(weight: Tensor) -> Tensor:
    return weight.clamp(torch.finfo(weight.dtype).tiny, 1).log()


def at_least(weights: Tensor) -> Tensor:
    """(K,) weights of ordered options → (K,) weight of using option i or a larger one.

    Options are nested, so this is how much of subset i is used: for kernels 3 and 5 it is 1 for
    the inner core and the indicator of Eq. 1 for the outer shell.
    """
    return weights.flip(0).cumsum(0).flip(0)


def nested_weights(gates: Tensor) -> Tensor:
    """(K-1,) indicators "use the next subset as well" → (K,) weights of the K options.

    ``g1·(1-g2)`` is the weight of the middle option of three, as in Eq. 3 and 4.
    """
    reached = torch.cat([gates.new_ones(1), gates.cumprod(0)])
    return reached - torch.cat([reached[1:], gates.new_zeros(1)])


def hard_decision(space: SearchSpace, choice: Choice) -> Decision:
    """The decision that takes ``choice`` alone."""
    used = choice or Candidate(0, 0, 0)

    def one_hot(index: int, size: int) -> Tensor:
        return torch.eye(size)[index]

    return Decision(
        one_hot(used.kernel, len(space.kernel_sizes)),
        one_hot(used.expansion, len(space.expansions)),
        one_hot(used.se, len(space.se_ratios)),
        torch.tensor(float(choice is not None)),
    )
