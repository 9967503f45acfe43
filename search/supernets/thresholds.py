"""Trainable thresholds: decisions as functions of the weights that they are about (Eq. 2-4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.blocks import SqueezeExcite
from search.space import Candidate, Choice
from search.supernets.decisions import Decision, at_least, nested_weights
from search.supernets.superkernel import SuperMBConv


@dataclass(frozen=True)
class Energy:
    """Squared weights of the subset that each decision of a layer is about.

    Decisions are ordered: kernel shells, expansion groups, SE groups, and last the skip-op where
    the layer has it.

    Attributes:
        subset: (G,) ‖w‖² of the subset.
        subset_size: (G,) its number of weights.
        reference: (G,) ‖w‖² of what the subset is compared with: the smaller options that it
            extends; the whole superkernel for the smallest option.
        reference_size: (G,) the number of weights there.
    """

    subset: Tensor
    subset_size: Tensor
    reference: Tensor
    reference_size: Tensor


def relative_importance(energy: Energy, floor: float = 0.0) -> Tensor:
    """(G,) log of the mean square of a subset over that of its reference: free of any scale.

    Batch norm makes the scale of a kernel arbitrary and a norm grows with the number of weights;
    this signal changes with neither, so one temperature fits all layers.

    Args:
        energy: of the subsets.
        floor: added to a subset's mean square, as a part of its reference's. Where a ring starts
            at 0, its first small weights would else move the logarithm by more than a decision
            can answer.
    """
    subset = energy.subset / energy.subset_size
    reference = energy.reference / energy.reference_size
    return (subset + floor * reference + 1e-12).log() - (reference + 1e-12).log()


def norm_importance(energy: Energy, floor: float = 0.0) -> Tensor:
    """(G,) ‖w‖² of the subset, as Eq. 2-4 are written."""
    return energy.subset


def no_importance(energy: Energy, floor: float = 0.0) -> Tensor:
    """(G,) zeros: decisions are free parameters τ, as in other differentiable searches (Eq. 18)."""
    return torch.zeros_like(energy.subset)


@dataclass(frozen=True)
class Importance:
    """A signal to compare with thresholds.

    Attributes:
        signal: what is compared.
        unit: how the relaxation is scaled: ``constant`` divides by the temperature alone,
            ``initial`` also by the signal's initial value.
        start: initial thresholds: ``below`` puts them below the initial signal by
            ``initial_logit`` temperatures, ``zero`` at 0.
    """

    signal: Callable[[Energy, float], Tensor]
    unit: str = "constant"
    start: str = "below"


IMPORTANCES: dict[str, Importance] = {
    "relative": Importance(relative_importance),
    "norm": Importance(norm_importance, unit="initial"),
    "literal": Importance(norm_importance, start="zero"),
    "none": Importance(no_importance),
}
"""``relative`` is scale-free; ``norm`` is Eq. 2's ‖w‖² with thresholds and relaxation in units of
its initial value; ``literal`` is Eq. 2 to the letter, σ(‖w‖² - t) with t = 0 at the start: at
ImageNet widths σ′ is 0 in single precision, and the thresholds never move. With ``none`` the
thresholds are path weights, apart from the kernels."""


def sigmoid_gate(logits: Tensor) -> Tensor:
    """The indicator 1(x > t), with the gradient of σ(x - t) (Sec. III-B)."""
    relaxed = logits.sigmoid()
    return (logits > 0).to(logits.dtype) + relaxed - relaxed.detach()


def straight_through_gate(logits: Tensor) -> Tensor:
    """The indicator, with the gradient of the identity (Sec. VII-A, variant 3)."""
    return (logits > 0).to(logits.dtype) + logits - logits.detach()


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
    """The thresholds t of one layer, and the decisions that they make.

    Args:
        layer: the superkernel whose weights are judged.
        importance: a key of ``IMPORTANCES``.
        temperature: divides importance minus threshold before the sigmoid.
        initial_logit: (importance - threshold) / temperature at the start; positive is "use".
        floor: of the importance (see :func:`relative_importance`).
    """

    unit: Tensor

    def __init__(
        self,
        layer: SuperMBConv,
        importance: str = "relative",
        temperature: float = 1.0,
        initial_logit: float = 2.0,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        space = layer.space
        self.sizes = (
            len(space.kernel_sizes) - 1,
            len(space.expansions) - 1,
            len(space.se_ratios) - 1,
            int(layer.layer.droppable),
        )
        self.importance = IMPORTANCES[importance]
        self.initial_logit = initial_logit
        self.temperature = temperature
        self.floor = floor
        self.values = nn.Parameter(torch.zeros(sum(self.sizes)))
        self.register_buffer("unit", torch.ones(sum(self.sizes)))
        self.reset(layer)

    @torch.no_grad()
    def reset(self, layer: SuperMBConv, used: Tensor | None = None) -> None:
        """Resets the thresholds to their initial values for the layer's present weights.

        Args:
            layer: the superkernel.
            used: (G,) 1 for every decision that starts as "use", 0 for the others; by default all.
        """
        everything = nested_weights(layer.kernel_rings.new_ones(self.sizes[0]))
        signal = self._signal(layer, everything)
        if used is not None:
            kernel = self._signal(layer, nested_weights(used[: self.sizes[0]]))
            signal = torch.cat([signal[: self.sizes[0]], kernel[self.sizes[0] :]])
        if self.importance.unit == "initial":
            self.unit.copy_(signal)
        if self.importance.start == "below":
            logits = self.initial_logit * (1.0 if used is None else 2 * used - 1)
            self.values.copy_(signal / self.unit - logits * self.temperature)

    def logits(self, layer: SuperMBConv, gate: Callable[[Tensor], Tensor]) -> Tensor:
        """(G,) (importance - threshold) / temperature of every decision; positive is "use".

        The expansion is judged by the weights that the kernel decision leaves (w_k in Eq. 3).
        """
        count = self.sizes[0]
        full = nested_weights(layer.kernel_rings.new_ones(count))
        kernel = self._scaled(self._signal(layer, full))[:count]
        weights = nested_weights(gate(kernel))
        rest = self._scaled(self._signal(layer, weights))[count:]
        return torch.cat([kernel, rest])

    def gates_of(self, choice: Choice) -> Tensor:
        """(G,) indicators, 0 or 1, that make ``choice``; a skipped layer has its smallest rest."""
        used = choice or Candidate(0, 0, 0)
        counts = (used.kernel, used.expansion, used.se, int(choice is not None))
        gates = [
            (torch.arange(size) < count).float()
            for size, count in zip(self.sizes, counts, strict=True)
        ]
        return torch.cat(gates).to(self.values.device)

    def _signal(self, layer: SuperMBConv, kernel_weights: Tensor) -> Tensor:
        return self.importance.signal(subset_energy(layer, kernel_weights), self.floor)

    def _scaled(self, signal: Tensor) -> Tensor:
        return (signal / self.unit - self.values) / self.temperature

    def decision(self, gates: Tensor) -> Decision:
        """(G,) indicators → the decision that they make."""
        kernel, expansion, se, keep = gates.split(self.sizes)
        return Decision(
            nested_weights(kernel),
            nested_weights(expansion),
            nested_weights(se),
            keep[0] if len(keep) else gates.new_ones(()),
        )


def subset_energy(layer: SuperMBConv, kernel_weights: Tensor) -> Energy:
    """The squared weights that every decision of a layer is about.

    Args:
        layer: the superkernel.
        kernel_weights: (K,) weights of the kernel sizes, for the kernel w_k of Eq. 3.
    """
    rings, groups = layer.kernel_rings, layer.channel_groups
    depthwise = layer.depthwise.conv.weight
    channels = depthwise.shape[0]
    per_ring = depthwise.square().flatten(1) @ rings.flatten(1).T  # (C, K)
    ring_size = rings.sum((1, 2))
    ring = _with_reference(per_ring.sum(0), ring_size * channels)

    used = at_least(kernel_weights)
    group_size = groups.sum(1) * (ring_size @ used)
    group = _with_reference(groups @ (per_ring @ used), group_size)

    parts = [tuple(part[1:] for part in ring), tuple(part[1:] for part in group)]
    if layer.has_se:
        squeeze = layer.squeeze_groups[-1].diff(dim=0)  # (S-1, Q) channels that each ratio adds
        assert isinstance(layer.se, SqueezeExcite)
        weight = layer.se.reduce.weight
        energy = squeeze @ weight.square().flatten(1).sum(1)
        parts.append(_with_reference(energy, squeeze.sum(1) * weight.shape[1]))
    if layer.layer.droppable:
        parts.append(tuple(part[:1] for part in group))
    return Energy(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _with_reference(energy: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(n,) energies and sizes of nested subsets → the same with each one's reference."""
    size = size.clamp(min=1)  # two options may round to the same channels
    inner, inner_size = energy.cumsum(0)[:-1], size.cumsum(0)[:-1]
    return (
        energy,
        size,
        torch.cat([energy.sum(0, keepdim=True), inner]),
        torch.cat([size.sum(0, keepdim=True), inner_size]),
    )
