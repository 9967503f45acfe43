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
from search.supernets.decisions import Decision
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
        self.thresholds = nn.ModuleList(
            Thresholds(layer, importance, temperature, initial_logit, importance_floor)
            for layer in self.superkernels
        )

    @property
    def _judged(self) -> list[tuple[SuperMBConv, Thresholds]]:
        return [
            (layer, cast(Thresholds, thresholds))
            for layer, thresholds in zip(self.superkernels, self.thresholds, strict=True)
        ]

    @property
    def superkernels(self) -> list[SuperMBConv]:
        """The searchable layers, in order."""
        return [cast(SuperMBConv, layer) for layer in self.searchable_layers]

    def decision_parameters(self) -> list[nn.Parameter]:
        """The thresholds."""
        return list(self.thresholds.parameters())

    def reset_thresholds(self, choices: Sequence[Choice] | None = None) -> None:
        """Resets every threshold to its initial logit, for the present weights.

        Args:
            choices: of the network to start at; by default everything is used.
        """
        for index, (layer, thresholds) in enumerate(self._judged):
            thresholds.reset(layer, thresholds.gates_of(choices[index]) if choices else None)

    @contextlib.contextmanager
    def gated(self, choices: Sequence[Choice]) -> Iterator[list[Tensor]]:
        """Runs as one network, with its indicators (G_i,) as leaves that gradients reach."""
        before, self.forced = self.forced, []
        gates = []
        for thresholds, choice in zip(self.thresholds, choices, strict=True):
            assert isinstance(thresholds, Thresholds)
            gates.append(thresholds.gates_of(choice).requires_grad_())
            self.forced.append(thresholds.decision(gates[-1]))
        try:
            yield gates
        finally:
            self.forced = before

    def logits(self) -> list[Tensor]:
        """(G_i,) logits of every layer's decisions."""
        with torch.autocast(self.stem.conv.weight.device.type, enabled=False):
            return [thresholds.logits(layer, self.gate) for layer, thresholds in self._judged]

    def relaxed_decisions(self) -> list[Decision]:
        """Decisions with σ instead of the indicator: how sure the supernet is of each option."""
        return [
            thresholds.decision(logits.sigmoid())
            for (_, thresholds), logits in zip(self._judged, self.logits(), strict=True)
        ]

    def choices(self) -> list[Choice]:
        """The network of the thresholds' hard decisions."""
        with torch.no_grad():
            return [
                thresholds.decision(_hard(logits)).choice()
                for (_, thresholds), logits in zip(self._judged, self.logits(), strict=True)
            ]

    def decide(self) -> None:
        """Sets ``decisions`` (for the runtime) and each layer's decision (with dropout).

        ``confidence`` is :meth:`relaxed_decisions` of the same logits, without gradient.
        """
        self.decisions, self.confidence = [], []
        found = self.logits()
        kept = self._kept([len(logits) for logits in found])
        for (layer, thresholds), logits, mask in zip(self._judged, found, kept, strict=True):
            gates = self.gate(logits) if self.training else _hard(logits)
            self.confidence.append(thresholds.decision(logits.detach().sigmoid()))
            self.decisions.append(thresholds.decision(gates))
            # a dropped subset is dropped: no rescaling of the others (0 or 1, never between)
            layer.decision = thresholds.decision(gates if mask is None else gates * mask)

    def _kept(self, sizes: list[int]) -> Sequence[Tensor | None]:
        """Of every layer (G_i,) the subsets that are not dropped; None where all are kept."""
        if not (self.training and self.subset_dropout):
            return [None] * len(sizes)
        kept = torch.rand(sum(sizes), generator=self.draws()) >= self.subset_dropout
        return kept.to(self.stem.conv.weight.device).split(sizes)


def _hard(logits: Tensor) -> Tensor:
    return (logits > 0).to(logits.dtype)
