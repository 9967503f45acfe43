"""The multi-path supernet: every candidate is a path with weights of its own (Sec. III-C, Eq. 6).

What single-path search is compared with: the methods of DARTS, FBNet and ProxylessNAS, whose cost
grows with the number of candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.blocks import NormLayer, init_weights, make_layer
from search.space import Choice, SearchLayer, SearchSpace
from search.supernets.decisions import (
    Decision,
    LayerDecision,
    PathWeights,
    on_device,
)
from search.supernets.one_shot import OneShot

Weigh = Callable[[Sequence[Tensor], float, torch.Generator | None], list[Tensor]]


def softmax_weights(
    logits: Sequence[Tensor], temperature: float, draws: torch.Generator | None = None
) -> list[Tensor]:
    """(N_i,) of every layer, probabilities: every path is used in part; nothing is drawn."""
    return [(layer / temperature).softmax(0) for layer in logits]


def gumbel_weights(
    logits: Sequence[Tensor], temperature: float, draws: torch.Generator | None = None
) -> list[Tensor]:
    """(N_i,) of every layer, a Gumbel-softmax sample, FBNet's: nearly one path if it is cold."""
    noise = [-torch.empty(layer.shape).exponential_(generator=draws).log() for layer in logits]
    # one transfer for all layers
    moved = on_device(torch.cat(noise), logits[0].device).split([len(layer) for layer in logits])
    noisy = [layer + part.to(layer) for layer, part in zip(logits, moved, strict=True)]
    return softmax_weights(noisy, temperature)


PATH_WEIGHTS: dict[str, Weigh] = {
    "softmax": softmax_weights,
    "gumbel": gumbel_weights,
}


class MultiPathLayer(nn.Module):
    """All candidates of a layer side by side; the output is their weighted sum (Eq. 6)."""

    decision: LayerDecision

    def __init__(self, layer: SearchLayer, space: SearchSpace, norm_layer: NormLayer) -> None:
        super().__init__()
        self.options = space.choices(layer)
        self.paths = nn.ModuleList(
            make_layer(layer.in_channels, space.layer_spec(layer, choice), norm_layer)
            for choice in self.options
        )
        self.decision = PathWeights(torch.full((len(self.paths),), 1 / len(self.paths)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H/stride, W/stride)."""
        if isinstance(self.decision, Decision):
            return self.paths[self.options.index(self.decision.choice())](x)
        total: Tensor | None = None
        for weight, path in zip(self.decision.paths, self.paths, strict=True):
            part = weight * path(x)
            total = part if total is None else total + part
        assert total is not None
        return total

    def choice_state(self, choice: Choice) -> dict[str, Tensor]:
        """The weights of one path; none for the skip-op."""
        path = self.paths[self.options.index(choice)]
        return {name: value.clone() for name, value in path.state_dict().items()}


class MultiPathSupernet(OneShot):
    """All networks of a space with separate weights for every candidate of every layer.

    Args:
        space: the search space.
        num_classes: outputs of the classifier.
        drop_rate: dropout before the classifier.
        path_weights: ``softmax``, or ``gumbel`` for samples of it.
        temperature: of the softmax.
        residual_scale: initial scale of every residual branch, as in the single-path supernet.
        norm_layer: normalisation; batch norm by default.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        *,
        path_weights: str = "softmax",
        temperature: float = 1.0,
        residual_scale: float = 0.2,
        norm_layer: NormLayer | None = None,
    ) -> None:
        super().__init__(
            space,
            num_classes,
            drop_rate,
            norm_layer,
            lambda layer, norm: MultiPathLayer(layer, space, norm),
        )
        self.weigh = PATH_WEIGHTS[path_weights]
        self.temperature = temperature
        init_weights(self, residual_scale)
        self.path_logits = nn.ParameterList(
            nn.Parameter(torch.zeros(len(space.choices(layer)))) for layer in space.layers
        )

    def decision_parameters(self) -> list[nn.Parameter]:
        """The logits of the paths."""
        return list(self.path_logits)

    def decision_gradient(self) -> Tensor | None:
        """() mean over layers."""
        found = [logits.grad.abs().mean() for logits in self.path_logits if logits.grad is not None]
        return torch.stack(found).mean() if found else None

    def relaxed_decisions(self) -> list[PathWeights]:
        """The probability of every path."""
        return [PathWeights(p) for p in softmax_weights(list(self.path_logits), self.temperature)]

    def choices(self) -> list[Choice]:
        """The most probable path of every layer."""
        return [
            self.space.choices(layer)[int(logits.argmax())]
            for layer, logits in zip(self.space.layers, self.path_logits, strict=True)
        ]

    def decide(self) -> None:
        """Weighs the paths; in eval mode every layer is its most probable path."""
        relaxed = self.relaxed_decisions()
        self.confidence = [PathWeights(decision.paths.detach()) for decision in relaxed]
        if self.training:
            found = self.weigh(list(self.path_logits), self.temperature, self.draws())
        else:
            found = [F.one_hot(d.paths.argmax(), len(d.paths)).to(d.paths) for d in relaxed]
        self.decisions = self.drawn = [PathWeights(paths) for paths in found]

    def set_layers(self) -> None:
        """Every layer weighs its paths, or is the one path that it is forced to be."""
        if self.forced is None:
            self.decide()
        for layer, decision in zip(self.searchable_layers, self.drawn, strict=True):
            cast(MultiPathLayer, layer).decision = decision
