"""The one-shot supernet: a classifier whose searchable layers are superkernels (Sec. III-B)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from backbones.blocks import NormLayer, init_weights, scale_residual_branches
from backbones.errors import UserError
from search.space import Choice, SearchSpace
from search.supernets.decisions import Decisions, on_device
from search.supernets.one_shot import OneShot
from search.supernets.superkernel import SuperMBConv
from search.supernets.thresholds import GATES, IMPORTANCES, Thresholds


class Supernet(OneShot):
    """All networks of a space in one set of weights; thresholds decide which one it is.

    In training, subsets may be dropped at random.

    Args:
        space: the search space.
        num_classes: outputs of the classifier.
        drop_rate: dropout before the classifier.
        relaxation: gradient of the indicators, ``sigmoid`` or ``ste``; or ``softmax``, which has
            none and uses every option in part.
        importance: ``relative``, ``norm``, ``literal`` or ``none`` (see
            :mod:`search.supernets.thresholds`).
        temperature: of the relaxation.
        initial_logit: where every decision starts, in temperatures above its threshold.
        residual_scale: initial scale of every searchable residual branch. Small, so that the deep
            supernet trains from its first step; not 0, so that every threshold has a gradient
            there.
        importance_floor: see :func:`search.supernets.thresholds.relative_importance`.
        norm_layer: normalisation; batch norm by default.

    Attributes:
        known: (L, G) whether a layer has the decision, on the host.

    Raises:
        UserError: if the relaxation or the importance is unknown.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        *,
        relaxation: str = "sigmoid",
        importance: str = "relative",
        temperature: float = 1.0,
        initial_logit: float = 2.0,
        residual_scale: float = 0.2,
        importance_floor: float = 0.0,
        norm_layer: NormLayer | None = None,
    ) -> None:
        for name, value, known in (
            ("relaxation", relaxation, GATES),
            ("importance", importance, IMPORTANCES),
        ):
            if value not in known:
                raise UserError(f"unknown {name} '{value}'; expected one of {', '.join(known)}")
        super().__init__(
            space,
            num_classes,
            drop_rate,
            norm_layer,
            lambda layer, norm: SuperMBConv(layer, space, norm),
        )
        self.gate = GATES[relaxation]
        init_weights(self, residual_scale=1.0)
        for superkernel in self.superkernels:
            scale_residual_branches(superkernel, residual_scale)
        self.thresholds = Thresholds(
            self.superkernels, importance, temperature, initial_logit, importance_floor
        )
        self.known = torch.ones(self.thresholds.values.shape, dtype=torch.bool)
        self.known[:, -1] = torch.tensor([layer.droppable for layer in space.layers])
        self._count = int(self.known.sum())

    @property
    def superkernels(self) -> list[SuperMBConv]:
        """The searchable layers, in order."""
        return [cast(SuperMBConv, layer) for layer in self.searchable_layers]

    def decision_parameters(self) -> list[nn.Parameter]:
        """The thresholds."""
        return list(self.thresholds.parameters())

    def decision_gradient(self) -> Tensor | None:
        """() mean over the thresholds of all layers."""
        gradient = self.thresholds.values.grad
        return None if gradient is None else gradient[self.known].abs().mean()

    def reset_thresholds(self, choices: Sequence[Choice] | None = None) -> None:
        """Resets every threshold to its initial logit, for the present weights.

        Args:
            choices: of the network to start at; by default everything is used.
        """
        used = self.thresholds.gates_of(choices) if choices else None
        self.thresholds.reset(self.superkernels, used)

    @contextlib.contextmanager
    def gated(self, choices: Sequence[Choice]) -> Iterator[Tensor]:
        """Runs as one network, with its indicators (L, G) as a leaf that gradients reach."""
        before = self.forced
        gates = self.thresholds.gates_of(choices).requires_grad_()
        (self.forced,) = self.thresholds.decisions(gates)
        try:
            yield gates
        finally:
            self.forced = before

    def logits(self) -> Tensor:
        """(L, G) logits of every layer's decisions."""
        with self._single_precision():
            layers = self.superkernels
            kernels = self.thresholds.subsets.kernels(layers)
            return self.thresholds.logits(layers, kernels, self.gate)

    def relaxed_decisions(self) -> Decisions:
        """Decisions with σ instead of the indicator: how sure the supernet is of each option."""
        return self.thresholds.decisions(self.logits().sigmoid())[0]

    @torch.no_grad()
    def choices(self) -> list[Choice]:
        """The network of the thresholds' hard decisions."""
        decisions = self.thresholds.decisions(_hard(self.logits()))[0].cpu()
        return [decision.choice() for decision in decisions]

    def decide(self) -> None:
        """Sets ``decisions`` (for the runtime), and ``drawn``, where subsets are dropped.

        ``confidence`` is :meth:`relaxed_decisions` of the same logits, without gradient.
        """
        with self._single_precision():
            self._decide(self.thresholds.subsets.kernels(self.superkernels))

    def set_layers(self) -> None:
        """Decides, unless a network is forced, and gives every layer its part of the weights."""
        layers, subsets, dtype = self.superkernels, self.thresholds.subsets, self._compute_dtype()
        with self._single_precision():
            kernels = subsets.kernels(layers)
            if self.forced is None:
                self._decide(kernels)
            parts = subsets.parts(layers, kernels, Decisions.of(self.drawn), dtype)
        for layer, part in zip(layers, parts, strict=True):
            layer.parts = part

    def _decide(self, kernels: Tensor) -> None:
        logits = self.thresholds.logits(self.superkernels, kernels, self.gate)
        gates = self.gate(logits) if self.training else _hard(logits)
        # a dropped subset is dropped: no rescaling of the others (0 or 1, never between)
        dropped = [gates * self._kept()] if self.training and self.subset_dropout else []
        relaxed = logits.detach().sigmoid()
        self.confidence, *found = self.thresholds.decisions(relaxed, gates, *dropped)
        self.decisions, self.drawn = found[0], found[-1]

    def _kept(self) -> Tensor:
        """(L, G) 1 for the subsets that are not dropped."""
        draws = torch.rand(self._count, generator=self.draws())
        kept = torch.ones(self.known.shape).masked_scatter_(self.known, draws)
        return on_device((kept >= self.subset_dropout).float(), self.thresholds.values.device)

    def _single_precision(self) -> torch.autocast:
        return torch.autocast(self.thresholds.values.device.type, enabled=False)

    def _compute_dtype(self) -> torch.dtype:
        """Of convolutions: that of mixed precision, or that of the weights."""
        weight = self.stem.conv.weight
        kind = weight.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _hard(logits: Tensor) -> Tensor:
    return (logits > 0).to(logits.dtype)
