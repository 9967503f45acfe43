"""Decisions of a searchable layer as weights of its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

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
class Decisions(Sequence[Decision]):
    """The decisions of L layers, in a tensor for every kind of option.

    Attributes:
        kernel: (L, K) as in :class:`Decision`.
        expansion: (L, E).
        se: (L, S).
        keep: (L, 1).
    """

    kernel: Tensor
    expansion: Tensor
    se: Tensor
    keep: Tensor

    @classmethod
    def of(cls, decisions: Sequence[LayerDecision]) -> Decisions:
        """Stacks those of single layers, unless they are stacked."""
        if isinstance(decisions, Decisions):
            return decisions
        weights = [vars(d).values() for d in decisions if isinstance(d, Decision)]
        kernel, expansion, se, keep = map(torch.stack, zip(*weights, strict=True))
        return cls(kernel, expansion, se, keep[:, None])

    @overload
    def __getitem__(self, index: int) -> Decision: ...

    @overload
    def __getitem__(self, index: slice) -> Decisions: ...

    def __getitem__(self, index: int | slice) -> Decision | Decisions:
        kernel, expansion, se, keep = (weights[index] for weights in vars(self).values())
        if isinstance(index, int):
            return Decision(kernel, expansion, se, keep[0])
        return Decisions(kernel, expansion, se, keep)

    def __len__(self) -> int:
        return len(self.keep)

    def cpu(self) -> Decisions:
        """The same on the host."""
        return Decisions(*(weights.cpu() for weights in vars(self).values()))


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


def reached(gates: Tensor) -> list[Tensor]:
    """(…, n) indicators "use the next subset as well" → (…, m) parts of how much each is used.

    Options are nested, so a subset is used where all smaller ones are.
    """
    if gates.shape[-1] < 2:
        return [gates]
    used = list(gates.split(1, -1))
    for index in range(1, len(used)):  # cumprod would ask on the host whether a gate is 0
        used[index] = used[index - 1] * used[index]
    return used


def hard_decision(space: SearchSpace, choice: Choice) -> Decision:
    """The decision that takes ``choice`` alone."""
    return hard_decisions(space, [choice])[0]


def hard_decisions(
    space: SearchSpace, choices: Sequence[Choice], device: torch.device | None = None
) -> Decisions:
    """The decisions that take ``choices``, one per layer; a skipped layer has its smallest rest."""
    sizes = (len(space.kernel_sizes), len(space.expansions), len(space.se_ratios))
    rows = []
    for choice in choices:
        used = choice or Candidate(0, 0, 0)
        options = zip(sizes, (used.kernel, used.expansion, used.se), strict=True)
        one_hot = [float(index == i) for size, index in options for i in range(size)]
        rows.append([*one_hot, float(choice is not None)])
    return Decisions(*on_device(torch.tensor(rows), device).split((*sizes, 1), 1))


def on_device(tensor: Tensor, device: torch.device | None) -> Tensor:
    """A tensor of the host on a device, to which the host does not wait for it to get."""
    if device is None or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
