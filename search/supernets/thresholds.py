"""Trainable thresholds: decisions as functions of the weights that they are about (Eq. 2-4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search.space import Candidate, Choice
from search.supernets.decisions import Decisions, reached
from search.supernets.subsets import Energy, Subsets
from search.supernets.superkernel import SuperMBConv


def relative_importance(energy: Energy, floor: float = 0.0) -> Tensor:
    """(L, n) log of the mean square of a subset over that of its reference: free of any scale.

    Batch norm makes the scale of a kernel arbitrary and a norm grows with the number of weights;
    this signal changes with neither, so one temperature fits all layers.

    Args:
        energy: of the subsets.
        floor: added to a subset's mean square, as a part of its reference's. Where a ring starts
            at 0, its first small weights would else move the logarithm by more than a decision
            can answer.
    """
    means = energy.squares / energy.sizes
    if floor:
        subset, reference = means.chunk(2, 1)
        means = torch.cat([subset + floor * reference, reference], 1)
    subset, reference = (means + 1e-12).log().chunk(2, 1)
    return subset - reference


def norm_importance(energy: Energy, floor: float = 0.0) -> Tensor:
    """(L, n) ‖w‖² of the subset, as Eq. 2-4 are written."""
    return energy.squares.chunk(2, 1)[0]


@dataclass(frozen=True)
class Importance:
    """A signal to compare with thresholds.

    Attributes:
        signal: what is compared; None compares with nothing: decisions are free parameters τ, as
            in other differentiable searches (Eq. 18).
        unit: how the relaxation is scaled: ``constant`` divides by the temperature alone,
            ``initial`` also by the signal's initial value.
        start: initial thresholds: ``below`` puts them below the initial signal by
            ``initial_logit`` temperatures, ``zero`` at 0.
    """

    signal: Callable[[Energy, float], Tensor] | None
    unit: str = "constant"
    start: str = "below"


IMPORTANCES: dict[str, Importance] = {
    "relative": Importance(relative_importance),
    "norm": Importance(norm_importance, unit="initial"),
    "literal": Importance(norm_importance, start="zero"),
    "none": Importance(None),
}
"""``relative`` is scale-free; ``norm`` is Eq. 2's ‖w‖² with thresholds and relaxation in units of
its initial value; ``literal`` is Eq. 2 to the letter, σ(‖w‖² - t) with t = 0 at the start: at
ImageNet widths σ′ is 0 in single precision, and the thresholds never move. With ``none`` the
thresholds are path weights, apart from the kernels."""


def sigmoid_gate(logits: Tensor) -> Tensor:
    """The indicator 1(x > t), with the gradient of σ(x - t) (Sec. III-B)."""
    relaxed = logits.sigmoid()
    return (logits > 0) + (relaxed - relaxed.detach())


def straight_through_gate(logits: Tensor) -> Tensor:
    """The indicator, with the gradient of the identity (Sec. VII-A, variant 3)."""
    return (logits > 0) + (logits - logits.detach())


def softmax_gate(logits: Tensor) -> Tensor:
    """No indicator: every option is used in part (Sec. VII-A, variant 4).

    The softmax over an option and the next (Eq. 18) is σ of the difference of their parameters,
    which is the logit here.
    """
    return logits.sigmoid()


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": sigmoid_gate,
    "ste": straight_through_gate,
    "softmax": softmax_gate,
}


class Thresholds(nn.Module):
    """The thresholds t of all L layers, and the decisions that they make.

    A layer has a row of G decisions: kernel rings, expansion groups, SE groups, and last the
    skip-op, which means nothing where the layer cannot be skipped.

    Args:
        layers: the superkernels whose weights are judged.
        importance: a key of ``IMPORTANCES``.
        temperature: divides importance minus threshold before the sigmoid.
        initial_logit: (importance - threshold) / temperature at the start; positive is "use".
        floor: of the importance (see :func:`relative_importance`).

    Attributes:
        values: (L, G).
        sizes: numbers of decisions of every kind.
        droppable: (L, 1) 1 where a layer can be skipped.
    """

    unit: Tensor
    droppable: Tensor
    fixed: Tensor
    options: Tensor

    def __init__(
        self,
        layers: Sequence[SuperMBConv],
        importance: str = "relative",
        temperature: float = 1.0,
        initial_logit: float = 2.0,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        self.subsets = Subsets(layers)
        space = layers[0].space
        options = (space.kernel_sizes, space.expansions, space.se_ratios)
        self.sizes = (*(len(values) - 1 for values in options), 1)
        self.importance = IMPORTANCES[importance]
        self.initial_logit = initial_logit
        self.temperature = temperature
        self.floor = floor
        self.counts = (*(size + 1 for size in self.sizes[:-1]), 1)
        self.values = nn.Parameter(torch.zeros(len(layers), sum(self.sizes)))
        self.register_buffer("unit", torch.ones(self.values.shape))
        droppable = torch.tensor([[float(layer.layer.droppable)] for layer in layers])
        less_the_next = [
            torch.eye(count) - torch.diag(torch.ones(count - 1), -1) for count in self.counts
        ]
        constants = {
            "droppable": droppable,
            "fixed": 1 - droppable,
            "options": torch.block_diag(*less_the_next),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
        self.reset(layers)

    @torch.no_grad()
    def reset(self, layers: Sequence[SuperMBConv], used: Tensor | None = None) -> None:
        """Resets the thresholds to their initial values for the layers' present weights.

        Args:
            layers: the superkernels.
            used: (L, G) 1 for every decision that starts as "use", 0 for the others; by default
                all.
        """
        used = torch.ones_like(self.values) if used is None else used
        energies = self._energies(layers, self.subsets.kernels(layers))
        kernel = self._kernel_signal(energies)
        signal = torch.cat([kernel, self._other_signal(energies, used[:, : self.sizes[0]])], 1)
        if self.importance.unit == "initial":
            self.unit.copy_(signal)
        if self.importance.start == "below":
            logits = self.initial_logit * (2 * used - 1)
            self.values.copy_(signal / self.unit - logits * self.temperature)

    def logits(
        self, layers: Sequence[SuperMBConv], kernels: Tensor, gate: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """(L, G) (importance - threshold) / temperature of every decision; positive is "use".

        The expansion is judged by the weights that the kernel decision leaves (w_k in Eq. 3).

        Args:
            layers: the superkernels.
            kernels: (C, k·k) their depthwise kernels (:meth:`Subsets.kernels`).
            gate: makes indicators of logits.
        """
        energies = self._energies(layers, kernels)
        sides = [self.sizes[0], sum(self.sizes[1:])]
        (kernel_t, other_t), units = self.values.split(sides, 1), self.unit.split(sides, 1)
        kernel = self._scaled(self._kernel_signal(energies), units[0], kernel_t)
        other = self._scaled(self._other_signal(energies, gate(kernel)), units[1], other_t)
        return torch.cat([kernel, other], 1)

    def gates_of(self, choices: Sequence[Choice]) -> Tensor:
        """(n, G) indicators, 0 or 1, that make n choices; a skipped layer has its smallest rest."""
        rows = []
        for choice in choices:
            used = choice or Candidate(0, 0, 0)
            counts = (used.kernel, used.expansion, used.se, int(choice is not None))
            row = [i < count for size, count in zip(self.sizes, counts, strict=True)
                   for i in range(size)]  # fmt: skip
            rows.append(row)
        return torch.tensor(rows).to(self.values)

    def decisions(self, *gates: Tensor) -> list[Decisions]:
        """(L, G) indicators, and others of the same shape → the decisions that each makes.

        An option is weighed by what is used of its own subset and not of the next one: the middle
        option of three by ``g1·(1-g2)`` (Eq. 3 and 4).
        """
        *kinds, keep = torch.stack(gates).split(self.sizes, -1)
        keep = torch.addcmul(self.fixed, self.droppable, keep)
        one = keep.new_ones(keep.shape)  # the smallest option is a part of all
        used = [part for kind in kinds for part in (one, *reached(kind))]
        weights = torch.cat([*used, keep], -1) @ self.options
        rows = [
            row if own.requires_grad else row.detach()
            for row, own in zip(weights.unbind(), gates, strict=True)
        ]
        return [Decisions(*row.split(self.counts, -1)) for row in rows]

    def _energies(self, layers: Sequence[SuperMBConv], kernels: Tensor) -> Tensor | None:
        """What importances are about; None where there is none."""
        return self.subsets.energies(layers, kernels) if self.importance.signal else None

    def _kernel_signal(self, energies: Tensor | None) -> Tensor:
        """(L, K-1) importance of the rings; 0 without energies."""
        if energies is None or self.importance.signal is None:
            return torch.zeros_like(self.values[:, : self.sizes[0]])
        return self.importance.signal(self.subsets.kernel_energy(energies), self.floor)

    def _other_signal(self, energies: Tensor | None, gates: Tensor) -> Tensor:
        """(L, G - (K-1)) importance of all else, by the rings that (L, K-1) indicators leave."""
        if energies is None or self.importance.signal is None:
            return torch.zeros_like(self.values[:, self.sizes[0] :])
        used = torch.cat([gates.new_ones((len(gates), 1)), *reached(gates)], 1)
        energy = self.subsets.other_energy(energies, used)
        return self.importance.signal(energy, self.floor)

    def _scaled(self, signal: Tensor, unit: Tensor, values: Tensor) -> Tensor:
        if self.importance.unit == "initial":
            signal = signal / unit
        return (signal - values) / self.temperature
