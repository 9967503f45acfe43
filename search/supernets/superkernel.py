"""The searchable MBConv: every candidate is a subset of one set of weights (Eq. 1-5).

Decisions scale weights and pooled vectors, never feature maps, so the layer costs what its largest
candidate costs:

- the kernel decision masks the depthwise kernel's outer shells (Eq. 2);
- the expansion decision scales the pooled vector and the SE gates, or, without SE, the projection's
  input weights: everything between the depthwise activation and the projection is linear in the
  channels, so this equals zeroing the channels after normalisation and activation (Eq. 3);
- the skip decision scales the affine of the last norm, i.e. the whole residual branch (Eq. 3);
- the SE decision masks the squeeze convolution's channels (Eq. 4), and turns the path into the
  identity when it is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from backbones.blocks import ConvNormAct, MBConv, NormLayer, SqueezeExcite
from search.space import Candidate, Choice, SearchLayer, SearchSpace
from search.supernets.excitation import Excitation


@dataclass(frozen=True)
class Parts:
    """What decisions leave of a superkernel with C expanded and Q squeeze channels.

    Attributes:
        kernel: (C, 1, k, k) weights of the depthwise convolution.
        channels: (C,) weight of every expanded channel.
        squeeze: (Q,) weight of every squeeze channel.
        identity: (C,) part of a channel that passes the SE path as it is.
        excited: (C,) part of a channel that the SE path scales.
        norm: parameters of the last norm, by name; none where the layer cannot be skipped.
    """

    kernel: Tensor
    channels: Tensor
    squeeze: Tensor
    identity: Tensor
    excited: Tensor
    norm: Mapping[str, Tensor]


class SuperMBConv(MBConv):
    """The largest candidate of a layer, of which decisions leave a part.

    ``parts`` is set before each forward pass (:class:`search.supernets.single_path.Supernet`).
    """

    parts: Parts

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

    def gated_norm(self) -> dict[str, Tensor]:
        """The parameters of the last norm, which the skip decision scales; none without one."""
        return dict(self.project.norm.named_parameters()) if self.layer.droppable else {}

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H/stride, W/stride)."""
        parts = self.parts
        y = self._depthwise(self.expand(x), parts.kernel)
        if self.has_se:
            y = self.project.conv(self._excite(y, parts))
        else:
            y = F.conv2d(y, self.project.conv.weight * parts.channels[:, None, None])
        y = self._last_norm(y, parts.norm)
        return x + y if self.residual else y

    def _depthwise(self, x: Tensor, weight: Tensor) -> Tensor:
        conv = self.depthwise.conv
        x = self.depthwise.pad(x)
        x = F.conv2d(x, weight, stride=conv.stride, padding=conv.padding, groups=conv.groups)
        return self.depthwise.act(self.depthwise.norm(x))

    def _excite(self, y: Tensor, parts: Parts) -> Tensor:
        """(N, C, H, W) → the same, scaled; as it is without SE, and 0 in unused channels."""
        se = self.se
        assert isinstance(se, SqueezeExcite)
        assert se.reduce.bias is not None
        assert se.expand.bias is not None
        weights = [se.reduce.weight, se.reduce.bias, se.expand.weight, se.expand.bias]
        if se.reduce.weight.dtype != y.dtype:  # mixed precision
            weights = [weight.to(y.dtype) for weight in weights]
        masks = (parts.channels, parts.squeeze, parts.identity, parts.excited)
        excited: Tensor = Excitation.apply(y, *masks, *weights, self.space.se_gate)
        return excited

    def _last_norm(self, y: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        norm = self.project.norm
        return functional_call(norm, dict(parameters), (y,)) if parameters else norm(y)


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
