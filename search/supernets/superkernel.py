"""The searchable MBConv: every candidate is a subset of one set of weights (Eq. 1-5).

Decisions scale weights and pooled vectors, never feature maps, so the layer costs what its largest
candidate costs:

- the kernel decision masks the depthwise kernel's outer shells (Eq. 2);
- the expansion decision scales the projection's input weights: everything between the depthwise
  activation and the projection is linear in the channels, so this equals zeroing the channels
  after normalisation and activation (Eq. 3);
- the skip decision scales the affine of the last norm, i.e. the whole residual branch (Eq. 3);
- the SE decision masks the squeeze convolution's channels (Eq. 4), and turns the path into the
  identity when it is off.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from backbones.blocks import ConvNormAct, MBConv, NormLayer, SqueezeExcite
from search.space import Candidate, Choice, SearchLayer, SearchSpace
from search.supernets.decisions import Decision, at_least, hard_decision


class SuperMBConv(MBConv):
    """The largest candidate of a layer, of which a :class:`Decision` uses a part.

    ``decision`` is set before each forward pass
    (:class:`search.supernets.single_path.Supernet`); freshly built, the layer is its largest
    candidate.
    """

    depthwise: ConvNormAct
    project: ConvNormAct
    kernel_rings: Tensor
    channel_groups: Tensor
    squeeze_groups: Tensor

    def __init__(self, layer: SearchLayer, space: SearchSpace, norm_layer: NormLayer) -> None:
        spec = space.layer_spec(layer, space.candidates[-1])
        super().__init__(layer.in_channels, spec, norm_layer)
        self.layer = layer
        self.space = space
        self.decision: Decision = hard_decision(space, space.candidates[-1])
        self.register_buffer("kernel_rings", kernel_rings(space), persistent=False)
        narrower = (Candidate(0, index, 0) for index in range(len(space.expansions)))
        channels = [
            space.layer_spec(layer, candidate).expanded_channels(layer.in_channels)
            for candidate in narrower
        ]
        self.register_buffer("channel_groups", nested_groups(channels), persistent=False)
        self.register_buffer("squeeze_groups", self._squeeze_groups(), persistent=False)

    def choice_state(self, choice: Choice) -> dict[str, Tensor]:
        """The weights of one candidate, named as in ``MBConv``; none for the skip-op."""
        return {} if choice is None else candidate_state(self, choice)

    @property
    def has_se(self) -> bool:
        """Whether any candidate has an SE path."""
        return self.squeeze_groups.shape[-1] > 0

    def _squeeze_groups(self) -> Tensor:
        """(E, S, Q) which of the Q squeeze channels each expansion and SE ratio uses.

        The ratio is of the SE path's own input, so a smaller expansion also squeezes to fewer.
        """
        space, layer = self.space, self.layer
        counts = torch.tensor(
            [
                [
                    space.layer_spec(layer, Candidate(0, e, s)).squeeze_channels(layer.in_channels)
                    for s in range(len(space.se_ratios))
                ]
                for e in range(len(space.expansions))
            ]
        )
        return (torch.arange(int(counts.max())) < counts[..., None]).float()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H/stride, W/stride)."""
        decision = self.decision
        channel_mask = at_least(decision.expansion) @ self.channel_groups  # (C,)
        y = self._depthwise(self.expand(x), at_least(decision.kernel))
        if self.has_se:
            y = y * self._excitation(y.mean((2, 3), keepdim=True), decision, channel_mask)
        y = F.conv2d(y, self.project.conv.weight * channel_mask[:, None, None])
        y = self._last_norm(y, decision.keep)
        return x + y if self.residual else y

    def _depthwise(self, x: Tensor, ring_weights: Tensor) -> Tensor:
        conv = self.depthwise.conv
        mask = torch.einsum("k,khw->hw", ring_weights, self.kernel_rings)
        x = self.depthwise.pad(x)
        x = F.conv2d(
            x, conv.weight * mask, stride=conv.stride, padding=conv.padding, groups=conv.groups
        )
        return self.depthwise.act(self.depthwise.norm(x))

    def _excitation(self, pooled: Tensor, decision: Decision, channel_mask: Tensor) -> Tensor:
        """(N, C, 1, 1) → the same shape: off + (1 - off)·σ(·), the identity without SE."""
        se = self.se
        assert isinstance(se, SqueezeExcite)
        squeeze_mask = torch.einsum(
            "e,s,esq->q", decision.expansion, decision.se, self.squeeze_groups
        )
        # these maps are 1×1: masking them is cheaper than masking the weights
        hidden = se.act(se.reduce(pooled * channel_mask[:, None, None]))
        gate = se.gate(se.expand(hidden * squeeze_mask[:, None, None]))
        off = decision.se[0] if self.space.se_ratios[0] == 0 else 0.0
        return off + (1 - off) * gate

    def _last_norm(self, y: Tensor, keep: Tensor) -> Tensor:
        norm = self.project.norm
        if not self.layer.droppable:
            return norm(y)
        affine = {name: parameter * keep for name, parameter in norm.named_parameters()}
        return functional_call(norm, affine, (y,))


def kernel_rings(space: SearchSpace) -> Tensor:
    """(K, k_max, k_max) masks of the inner core and of the shell that each next kernel adds."""
    largest = space.kernel_sizes[-1]
    rings, inner = [], torch.zeros(largest, largest)
    for size in space.kernel_sizes:
        margin = (largest - size) // 2
        square = F.pad(torch.ones(size, size), [margin] * 4)
        rings.append(square - inner)
        inner = square
    return torch.stack(rings)


def nested_groups(counts: list[int]) -> Tensor:
    """(E, C) masks of the channels that each next option adds; ``counts`` are cumulative."""
    index = torch.arange(counts[-1])
    starts = [0, *counts[:-1]]
    return torch.stack(
        [((index >= a) & (index < b)).float() for a, b in zip(starts, counts, strict=True)]
    )


def candidate_state(layer: SuperMBConv, candidate: Candidate) -> dict[str, Tensor]:
    """The weights of one candidate, cut out of the superkernel, named as in ``MBConv``."""
    space, search_layer = layer.space, layer.layer
    spec = space.layer_spec(search_layer, candidate)
    channels = spec.expanded_channels(search_layer.in_channels)
    squeeze = spec.squeeze_channels(search_layer.in_channels)
    margin = (space.kernel_sizes[-1] - spec.kernel_size) // 2
    core = slice(margin, margin + spec.kernel_size)
    cuts: dict[str, tuple[slice, ...]] = {
        "expand.conv.weight": (slice(channels),),
        "depthwise.conv.weight": (slice(channels), slice(None), core, core),
        "se.reduce.weight": (slice(squeeze), slice(channels)),
        "se.reduce.bias": (slice(squeeze),),
        "se.expand.weight": (slice(channels), slice(squeeze)),
        "se.expand.bias": (slice(channels),),
        "project.conv.weight": (slice(None), slice(channels)),
    }
    state = {}
    for name, value in nn.Module.state_dict(layer).items():
        if (name.startswith("se.") and not squeeze) or name.startswith("thresholds"):
            continue
        if name.startswith(("expand.norm", "depthwise.norm")) and value.dim():
            value = value[:channels]
        state[name] = value[cuts[name]].clone() if name in cuts else value.clone()
    return state
