"""The one-shot supernet: a classifier whose searchable layers are superkernels (Sec. III-B)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from backbones.architecture import LayerSpec
from backbones.blocks import NormLayer, init_weights, make_layer
from backbones.errors import UserError
from backbones.network import Classifier, batch_norm
from search.decisions import Decision, hard_decision
from search.space import Choice, SearchSpace
from search.superkernel import SuperMBConv
from search.thresholds import GATES, IMPORTANCES, Thresholds


class Supernet(Classifier):
    """All networks of a space in one set of weights; thresholds decide which one it is.

    In training, ``decisions`` are differentiable and subsets may be dropped at random; in eval
    mode the supernet is exactly the network that it would export. :meth:`using` runs it as any
    network of the space.

    Args:
        space: the search space.
        num_classes: outputs of the classifier.
        drop_rate: dropout before the classifier.
        relaxation: gradient of the indicators, ``sigmoid`` or ``ste``; or ``softmax``, which has
            none and uses every option in part.
        importance: ``relative``, ``norm``, ``literal`` or ``none`` (see
            :mod:`search.thresholds`).
        temperature: of the relaxation.
        initial_logit: where every decision starts, in temperatures above its threshold.
        residual_scale: initial scale of every residual branch. Small, so that the deep supernet
            trains from its first step; not 0, so that every threshold has a gradient there.
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
        norm_layer: NormLayer | None = None,
    ) -> None:
        for name, value, known in (
            ("relaxation", relaxation, GATES),
            ("importance", importance, IMPORTANCES),
        ):
            if value not in known:
                raise UserError(f"unknown {name} '{value}'; expected one of {', '.join(known)}")
        largest = space.largest()
        norm_layer = norm_layer or batch_norm(largest)
        superkernels = [SuperMBConv(layer, space, norm_layer) for layer in space.layers]
        before = _fixed(space.first, space.stem.out_channels, norm_layer)
        after = _fixed(space.last, space.layers[-1].out_channels, norm_layer)
        super().__init__(
            largest, [*before, *superkernels, *after], norm_layer, num_classes, drop_rate
        )
        self.space = space
        self.gate = GATES[relaxation]
        self.subset_dropout = 0.0
        self.forced: list[Decision] | None = None
        self.decisions: list[Decision] = []
        self.confidence: list[Decision] = []
        init_weights(self, zero_init_residual=False)
        for superkernel in superkernels:
            for name, parameter in superkernel.project.norm.named_parameters():
                if superkernel.residual and name == "weight":
                    nn.init.constant_(parameter, residual_scale)
        self.thresholds = nn.ModuleList(
            Thresholds(layer, importance, temperature, initial_logit) for layer in superkernels
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
        return [layer for layer in self.layers if isinstance(layer, SuperMBConv)]

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
        """The network that the thresholds have decided for."""
        with torch.no_grad():
            return [
                thresholds.decision(_hard(logits)).choice()
                for (_, thresholds), logits in zip(self._judged, self.logits(), strict=True)
            ]

    @contextlib.contextmanager
    def using(self, choices: Sequence[Choice]) -> Iterator[None]:
        """Runs the supernet as one network of its space, whatever its thresholds say."""
        before = self.forced
        device = self.stem.conv.weight.device
        self.forced = [
            Decision(*(w.to(device) for w in vars(hard_decision(self.space, c)).values()))
            for c in choices
        ]
        try:
            yield
        finally:
            self.forced = before

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        """Decides, then computes the five maps at strides 2 to 32."""
        self._decide()
        return super().forward_intermediates(x)

    def _decide(self) -> None:
        """Sets ``decisions`` (for the runtime) and each layer's decision (with dropout).

        ``confidence`` is :meth:`relaxed_decisions` of the same logits, without gradient.
        """
        if self.forced is not None:
            self.decisions = self.confidence = self.forced
            for layer, decision in zip(self.superkernels, self.forced, strict=True):
                layer.decision = decision
            return
        self.decisions, self.confidence = [], []
        for (layer, thresholds), logits in zip(self._judged, self.logits(), strict=True):
            gates = self.gate(logits) if self.training else _hard(logits)
            self.confidence.append(thresholds.decision(logits.detach().sigmoid()))
            self.decisions.append(thresholds.decision(gates))
            if self.training and self.subset_dropout:
                # a dropped subset is dropped: no rescaling of the others (0 or 1, never between)
                gates = gates * (torch.rand_like(gates) >= self.subset_dropout)
            layer.decision = thresholds.decision(gates)


def _hard(logits: Tensor) -> Tensor:
    return (logits > 0).to(logits.dtype)


def _fixed(specs: Sequence[LayerSpec], channels: int, norm_layer: NormLayer) -> list[nn.Module]:
    modules = []
    for spec in specs:
        modules.append(make_layer(channels, spec, norm_layer))
        channels = spec.out_channels
    return modules
