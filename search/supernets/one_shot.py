"""Base of all supernets: one model that can run as any network of its space."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from backbones.architecture import LayerSpec
from backbones.blocks import NormLayer, make_layer
from backbones.network import Classifier, batch_norm
from search.space import Choice, SearchLayer, SearchSpace
from search.supernets.decisions import Decisions, LayerDecision, hard_decisions

DECISION_MODULES = ("thresholds", "path_logits")
"""Names of the child modules that hold the architecture parameters."""


class SearchableLayer(Protocol):
    """A layer of a supernet that takes any of its candidates."""

    def choice_state(self, choice: Choice) -> dict[str, Tensor]:
        """The weights of one candidate, named as in ``MBConv``; none for the skip-op."""


class OneShot(Classifier, ABC):
    """A classifier whose searchable layers hold all their candidates.

    In training, ``decisions`` are differentiable; in eval mode the supernet is exactly the network
    that it would export. :meth:`using` runs it as any network of the space.

    Args:
        space: the search space.
        num_classes: outputs of the classifier.
        drop_rate: dropout before the classifier.
        norm_layer: normalisation; batch norm by default.
        searchable: makes the searchable layer of a shape.

    Attributes:
        subset_dropout: probability that a subset is dropped for a training step, in supernets
            whose candidates are subsets of each other.
        decisions: of every layer, for the runtime.
        confidence: the same relaxed, and without gradient.
        drawn: what every layer is in this step: ``decisions`` without the subsets dropped.
        draw_seed: of what a training step draws to decide, on the CPU: the same in all processes of
            a run. None draws from PyTorch's global stream.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_classes: int,
        drop_rate: float,
        norm_layer: NormLayer | None,
        searchable: Callable[[SearchLayer, NormLayer], nn.Module],
    ) -> None:
        largest = space.largest()
        norm_layer = norm_layer or batch_norm(largest)
        layers = [
            *_fixed(space.first, space.stem.out_channels, norm_layer),
            *(searchable(layer, norm_layer) for layer in space.layers),
            *_fixed(space.last, space.layers[-1].out_channels, norm_layer),
        ]
        super().__init__(largest, layers, norm_layer, num_classes, drop_rate)
        self.space = space
        self.subset_dropout = 0.0
        self.draw_seed: int | None = None
        self.forced: Decisions | None = None
        self.decisions: Sequence[LayerDecision] = []
        self.confidence: Sequence[LayerDecision] = []
        self.drawn: Sequence[LayerDecision] = []

    @property
    def searchable_layers(self) -> list[SearchableLayer]:
        """The searchable layers, in order."""
        begin = len(self.space.first)
        end = begin + len(self.space.layers)
        return [cast(SearchableLayer, layer) for layer in list(self.layers)[begin:end]]

    @abstractmethod
    def decision_parameters(self) -> list[nn.Parameter]:
        """The architecture parameters (thresholds or path logits), apart from the weights."""

    @abstractmethod
    def decision_gradient(self) -> Tensor | None:
        """() mean magnitude of the gradients of decisions; None where there is none."""

    @abstractmethod
    def relaxed_decisions(self) -> Sequence[LayerDecision]:
        """Relaxed decisions: the weight of every option, one decision per layer."""

    @abstractmethod
    def choices(self) -> list[Choice]:
        """The network of the present hard decisions."""

    @abstractmethod
    def decide(self) -> None:
        """Sets ``decisions``, ``confidence`` and ``drawn``."""

    @abstractmethod
    def set_layers(self) -> None:
        """Decides, unless a network is forced, and makes every layer what is drawn."""

    def draws(self) -> torch.Generator | None:
        """The source of what a training step draws to decide; None is the global stream."""
        return None if self.draw_seed is None else torch.Generator().manual_seed(self.draw_seed)

    @contextlib.contextmanager
    def using(self, choices: Sequence[Choice]) -> Iterator[None]:
        """Runs the supernet as one network of its space, whatever it has decided."""
        before, device = self.forced, self.stem.conv.weight.device
        self.forced = hard_decisions(self.space, choices, device)
        try:
            yield
        finally:
            self.forced = before

    @torch.compiler.disable
    def prepare(self) -> None:
        """Decides what every searchable layer is in the next forward pass.

        A compiled supernet takes decisions as inputs: it is the same code whatever is decided.
        """
        if self.forced is not None:
            self.decisions = self.confidence = self.drawn = self.forced
        self.set_layers()

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        """Decides, then computes the five maps at strides 2 to 32."""
        self.prepare()
        return super().forward_intermediates(x)


def _fixed(specs: Sequence[LayerSpec], channels: int, norm_layer: NormLayer) -> list[nn.Module]:
    modules = []
    for spec in specs:
        modules.append(make_layer(channels, spec, norm_layer))
        channels = spec.out_channels
    return modules
