"""Which weights of the searchable layers every option uses, for all layers at once.

Deciding layer by layer would launch hundreds of operations a layer, each on a few numbers. So what
is decided, and the weights that it is about, are a few tensors over all layers: the depthwise
kernels below each other, their energies (Eq. 2-4) by layer, expansion and ring, and the weights
that decisions leave of them. Which number belongs to which layer and option is in matrices of
zeros and ones.

Dimensions: L layers, K kernel sizes, E expansions, S SE ratios, C expanded channels of all layers,
Q squeeze channels of all layers, k the side of the largest kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.blocks import SqueezeExcite
from search.supernets.decisions import Decisions
from search.supernets.superkernel import Parts, SuperMBConv


@dataclass(frozen=True)
class Energy:
    """Squared weights of the subsets that n decisions of L layers are about.

    Every subset is compared with the smaller options that it extends; the smallest option with
    the whole superkernel.

    Attributes:
        squares: (L, 2·n) ‖w‖² of the subsets, then of what they are compared with.
        sizes: (L, 2·n) the numbers of weights there.
    """

    squares: Tensor
    sizes: Tensor


class Subsets(nn.Module):
    """The options of all searchable layers.

    Args:
        layers: the superkernels, of one space.

    Attributes:
        rings: (k·k, K) positions that every kernel size adds.
        squares: (K, k·k) positions of every kernel size.
        members: (C, L) channels of every layer.
        added_channels: (L·E, C) channels that every expansion adds.
        channels: (L·E, C) channels of every expansion.
        se_uses: (S, 3) ones, and 1 for the ratio 0, and 1 for the others.
        squeezes: (L·E·S, Q) squeeze channels of every expansion and SE ratio.
        norms: (L, parameters of the last norms) of the layers that can be skipped.
        kernel_pairs: (E·K + S, 2·(K-1)) subsets that kernel decisions compare.
        other_pairs: (E·K + S, 2·n) those of expansions, SE ratios and the skip-op.
        ring_uses: (K, E·K + S) energies that are in a kernel of every size.
        kernel_sizes: (L, 2·(K-1)) numbers of weights in those subsets.
        sizes: (L, E·K + S) of weights by expansion and ring, and by SE ratio.
    """

    rings: Tensor
    squares: Tensor
    members: Tensor
    added_channels: Tensor
    channels: Tensor
    se_uses: Tensor
    squeezes: Tensor
    norms: Tensor
    kernel_pairs: Tensor
    other_pairs: Tensor
    ring_uses: Tensor
    kernel_sizes: Tensor
    sizes: Tensor
    squeeze_blocks: Tensor

    def __init__(self, layers: Sequence[SuperMBConv]) -> None:
        super().__init__()
        space = layers[0].space
        self.shape = len(layers), len(space.expansions), len(space.kernel_sizes)
        self.widths = [layer.channel_groups.shape[1] for layer in layers]
        self.squeeze_widths = [layer.squeeze_groups.shape[-1] for layer in layers]
        rows = torch.stack([_added(layer.squeeze_groups[-1].sum(1)) for layer in layers])
        lengths = rows.long() * torch.tensor(self.widths)[:, None]  # (L, S)
        # every subset has a whole number of blocks: most of the sum runs over dense rows
        self.block = math.gcd(*lengths.flatten().tolist())
        constants = {
            **_memberships(layers),
            **_comparisons(layers, lengths),
            "se_uses": torch.tensor([[1.0, not ratio, bool(ratio)] for ratio in space.se_ratios]),
            "squeeze_blocks": lengths.flatten() // max(self.block, 1),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def kernels(self, layers: Sequence[SuperMBConv]) -> Tensor:
        """(C, k·k) the depthwise kernels of all layers below each other."""
        return torch.cat([layer.depthwise.conv.weight for layer in layers]).flatten(1)

    def energies(self, layers: Sequence[SuperMBConv], kernels: Tensor) -> Tensor:
        """(L, E·K + S) ‖w‖² by expansion and ring that add the weights, and by SE ratio."""
        count, expansions, sizes = self.shape
        by_ring = (kernels * kernels) @ self.rings  # (C, K)
        rings = (self.added_channels @ by_ring).view(count, expansions * sizes)
        if not self.block:
            return F.pad(rings, (0, 1))  # a space without SE has one ratio, 0
        flat = [cast(SqueezeExcite, layer.se).reduce.weight.flatten() for layer in layers]
        blocks = torch.cat(flat).view(-1, self.block)
        sums = (blocks * blocks).sum(1)
        squeezes = torch.segment_reduce(sums, "sum", lengths=self.squeeze_blocks, unsafe=True)
        return torch.cat([rings, squeezes.view(count, -1)], 1)

    def kernel_energy(self, energies: Tensor) -> Energy:
        """Of the rings that K-1 kernel sizes add."""
        return Energy(energies @ self.kernel_pairs, self.kernel_sizes)

    def other_energy(self, energies: Tensor, used: Tensor) -> Energy:
        """Of what expansions add, what SE ratios add, and the smallest expansion.

        Args:
            energies: (L, E·K + S).
            used: (L, K) how much of every ring is used, for the kernel w_k of Eq. 3.
        """
        uses = used @ self.ring_uses
        return Energy((energies * uses) @ self.other_pairs, (self.sizes * uses) @ self.other_pairs)

    def parts(
        self,
        layers: Sequence[SuperMBConv],
        kernels: Tensor,
        decisions: Decisions,
        dtype: torch.dtype,
    ) -> list[Parts]:
        """What decisions leave of the weights of every layer.

        Args:
            layers: the superkernels.
            kernels: (C, k·k) their depthwise kernels.
            decisions: of all layers.
            dtype: that the layers compute in.
        """
        side = layers[0].depthwise.conv.kernel_size
        masked = kernels * (self.members @ (decisions.kernel @ self.squares))
        ratios = decisions.expansion.unsqueeze(2) * decisions.se.unsqueeze(1)  # (L, E, S)
        squeeze = (ratios.view(1, -1) @ self.squeezes).view(-1)
        # of every channel: whether it is used, whether without SE, and whether with it
        uses = (ratios.view(-1, ratios.shape[2]) @ self.se_uses).T @ self.channels
        if dtype != masked.dtype:
            masked, squeeze, uses = masked.to(dtype), squeeze.to(dtype), uses.to(dtype)
        vectors, count = uses.reshape(-1).split(3 * self.widths), len(layers)
        split = zip(
            masked.view(-1, 1, *side).split(self.widths),
            vectors[:count],
            squeeze.split(self.squeeze_widths),
            vectors[count : 2 * count],
            vectors[2 * count :],
            self._norms(layers, decisions.keep),
            strict=True,
        )
        return [Parts(*part) for part in split]

    def _norms(self, layers: Sequence[SuperMBConv], keep: Tensor) -> list[dict[str, Tensor]]:
        """The parameters of the last norms, scaled by the skip decision."""
        named = [layer.gated_norm() for layer in layers]
        flat = [parameter for layer in named for parameter in layer.values()]
        if not flat:
            return [{} for _ in layers]
        scaled = torch.cat(flat) * (keep.T @ self.norms).view(-1)
        found = iter(scaled.split([len(parameter) for parameter in flat]))
        return [{name: next(found) for name in layer} for layer in named]


def _memberships(layers: Sequence[SuperMBConv]) -> dict[str, Tensor]:
    """Which position, channel and parameter belongs to which layer and option."""
    rings = layers[0].kernel_rings.float().flatten(1)
    added = [layer.channel_groups.float() for layer in layers]
    widths = [groups.shape[1] for groups in added]
    norms = [sum(map(len, layer.gated_norm().values())) for layer in layers]
    return {
        "rings": rings.T.contiguous(),
        "squares": rings.cumsum(0),
        "members": torch.block_diag(*(torch.ones(width, 1) for width in widths)),
        "added_channels": torch.block_diag(*added),
        "channels": torch.block_diag(*(groups.cumsum(0) for groups in added)),
        "squeezes": torch.block_diag(*(layer.squeeze_groups.flatten(0, 1) for layer in layers)),
        "norms": torch.block_diag(*(torch.ones(1, count) for count in norms)),
    }


def _comparisons(layers: Sequence[SuperMBConv], squeeze_sizes: Tensor) -> dict[str, Tensor]:
    """What every decision compares, and the sizes of it.

    Args:
        layers: the superkernels.
        squeeze_sizes: (L, S) numbers of weights that SE ratios add.
    """
    ring_sizes = layers[0].kernel_rings.float().sum((1, 2))
    widths = torch.stack([layer.channel_groups.float().sum(1) for layer in layers])
    kernels, expansions, ratios = len(ring_sizes), widths.shape[1], squeeze_sizes.shape[1]
    rings = (widths[:, :, None] * ring_sizes).flatten(1)  # (L, E·K)
    kernel_pairs = _pairs(kernels)[:, :, 1:].flatten(1).repeat(expansions, 1)
    groups = _pairs(expansions).repeat_interleave(kernels, 0)
    # the first SE ratio is in every candidate: it is not decided about
    squeezes = torch.cat([torch.zeros(1, 2, ratios - 1), _pairs(ratios - 1)])
    first = kernels * torch.arange(expansions)
    sizes = torch.cat([rings, squeeze_sizes.clamp(min=1)], 1)
    # two options may round to the same channels
    sizes[:, first] += widths == 0
    return {
        "kernel_pairs": F.pad(kernel_pairs, (0, 0, 0, ratios)),
        "other_pairs": torch.cat(
            [
                torch.cat([F.pad(groups[:, :, 1:], (0, ratios - 1)), groups[:, :, :1]], 2),
                F.pad(squeezes, (expansions - 1, 1)),
            ]
        ).flatten(1),
        "ring_uses": torch.cat(
            [
                torch.eye(kernels).repeat(1, expansions),
                F.one_hot(torch.zeros(ratios).long(), kernels).T,
            ],
            1,
        ),
        "kernel_sizes": rings @ kernel_pairs,
        "sizes": sizes,
    }


def _pairs(count: int) -> Tensor:
    """(n, 2, n) parts of n nested subsets: each one's own, and those that it is compared with."""
    before = torch.ones(count, count).triu(1)
    before[:, :1] = 1
    return torch.stack([torch.eye(count), before], 1)


def _added(counts: Tensor) -> Tensor:
    """(n,) sizes of nested subsets → (n,) what each adds to the one before."""
    return counts.diff(prepend=counts.new_zeros(1))
