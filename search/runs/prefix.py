"""The first layers of a network, computed once for all networks that share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.architecture import InputSpec
from backbones.blocks import MBConv
from search.classification.calibration import estimate_statistics
from search.classification.pixels import normalised
from search.space import Choice
from search.start.refitting import fit_projection

Wanted = Mapping[int, Sequence[Tensor]]
"""By the index of a module: rows of what it is to compute on the training batches."""


class Normalise(nn.Module):
    """Bytes to what a network expects."""

    def __init__(self, expected: InputSpec) -> None:
        super().__init__()
        self._expected = expected

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) uint8 → (N, 3, H, W)."""
        return normalised(images, self._expected)


@dataclass(frozen=True)
class Prefix:
    """What the first modules of a network make of images.

    Attributes:
        modules: how many.
        choices: of the searchable layers among them.
        training: of every training batch, as in training; statistics are estimated on them.
        judged: of every batch to judge on, with those statistics.
    """

    modules: int
    choices: tuple[Choice, ...]
    training: Sequence[Tensor]
    judged: Sequence[Tensor]

    def shared_by(self, choices: Sequence[Choice]) -> bool:
        """Whether a network has these modules."""
        return tuple(choices[: len(self.choices)]) == self.choices

    @torch.no_grad()
    def extended(
        self,
        network: Sequence[nn.Module],
        modules: int,
        choices: Sequence[Choice],
        wanted: Wanted,
    ) -> Prefix:
        """By further modules of a network that has these.

        Args:
            network: its modules in sequence; their statistics are changed.
            modules: how many of them.
            choices: of the searchable layers among them.
            wanted: of the blocks that are fitted to it.
        """
        training, judged = self.training, self.judged
        for index in range(self.modules, modules):
            module = network[index]
            if index in wanted:
                assert isinstance(module, MBConv)
                fit_projection(module, training, wanted[index])
            training = _calibrated(module, training)
            judged = [module(maps) for maps in judged]
        return Prefix(modules, tuple(choices), training, judged)

    @torch.no_grad()
    def outputs(self, network: Sequence[nn.Module], wanted: Wanted) -> list[Tensor]:
        """What a network that has these modules makes of the batches to judge on.

        Args:
            network: its modules in sequence; the statistics of the others are changed.
            wanted: of the blocks that are fitted to it.
        """
        if (fitted := max(wanted, default=-1) + 1) > self.modules:
            return self.extended(network, fitted, (), wanted).outputs(network, {})
        rest = nn.Sequential(*network[self.modules :])
        estimate_statistics(rest, self.training, len(self.training))
        rest.eval()
        return [rest(maps) for maps in self.judged]


def _calibrated(module: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """What a module makes of batches as in training; it is left in eval mode, with its statistics.

    The batches go through it once: early layers' maps are what most of the time goes into.
    """
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        estimate_statistics(module, batches, len(batches))
    finally:
        handle.remove()
    module.eval()
    return outputs or [module(maps) for maps in batches]  # without statistics nothing was run
