"""The differentiable runtime of a supernet's decisions (Eq. 10-17)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbones.errors import UserError
from backbones.latency import LatencyTable, layer_runtimes, not_covered
from search.space import Choice, SearchSpace
from search.supernets.decisions import Decisions, LayerDecision, PathWeights


def runtime_entries(space: SearchSpace, table: LatencyTable) -> Tensor:
    """(L, K, E, S) runtime of every candidate of every searchable layer, corrected.

    Raises:
        UserError: naming the layers that the table lacks.
    """
    shape = (len(space.kernel_sizes), len(space.expansions), len(space.se_ratios))
    entries = torch.empty(len(space.layers), *shape, dtype=torch.float64)
    for candidate in space.candidates:
        architecture = space.uniform(candidate)
        found, uncovered = layer_runtimes(architecture, table)
        if uncovered:
            raise not_covered(table, f"search space '{space.name}'", uncovered)
        column = torch.tensor([found[i] for i in sorted(found)], dtype=torch.float64)
        entries[:, candidate.kernel, candidate.expansion, candidate.se] = column
    return entries


class RuntimeModel(nn.Module):
    """R(w | t) of Eq. 11 in the table's unit: the constant part plus the sum over layers.

    Each layer's runtime is the sum over its candidates, weighted with the decision's weights:
    exact where the decision is hard, and multilinear between.

    Raises:
        UserError: if the table does not cover the space, or gives a network no positive runtime.
    """

    entries: Tensor
    constant: Tensor

    def __init__(self, space: SearchSpace, table: LatencyTable) -> None:
        super().__init__()
        self.space = space
        self.table = table
        self.costs = runtime_entries(space, table).tolist()  # in double precision, for selection
        self.register_buffer("entries", torch.tensor(self.costs))
        self.register_buffer("constant", torch.tensor(table.corrected_constant))
        smallest = self.fixed_runtime + sum(
            min(self.choice_runtimes(index)) for index in range(len(space.layers))
        )
        if smallest <= 0:
            raise UserError(
                f"latency table '{table.name}' predicts {smallest:.4g} {table.unit} for the "
                f"smallest network of search space '{space.name}'; expected a runtime above 0: "
                "profile the device again with spnas profile"
            )

    @property
    def fixed_runtime(self) -> float:
        """Runtime of what is not searched, in double precision."""
        return self.table.corrected_constant

    def layers(self, decisions: Decisions) -> Tensor:
        """(L,) runtime of every searchable layer."""
        count, kernels, expansions, ratios = self.entries.shape
        weights = (
            decisions.kernel.view(count, kernels, 1, 1)
            * decisions.expansion.view(count, 1, expansions, 1)
            * decisions.se.view(count, 1, 1, ratios)
        )
        return decisions.keep.view(count) * (self.entries * weights).sum((1, 2, 3))

    def choice_runtimes(self, index: int) -> list[float]:
        """Runtime of every choice of the layer ``index``, in the order of ``space.choices``."""
        entries = self.costs[index]
        return [
            0.0 if choice is None else entries[choice.kernel][choice.expansion][choice.se]
            for choice in self.space.choices(self.space.layers[index])
        ]

    def runtime_of(self, choices: Sequence[Choice]) -> float:
        """Runtime of a network, in double precision."""
        return self.fixed_runtime + sum(
            self.choice_runtimes(index)[self.space.choices(layer).index(choice)]
            for index, (layer, choice) in enumerate(zip(self.space.layers, choices, strict=True))
        )

    def forward(self, decisions: Sequence[LayerDecision]) -> Tensor:
        """() runtime of the network."""
        if isinstance(decisions, Decisions):
            return self.constant + self.layers(decisions).sum()
        if isinstance(decisions[0], PathWeights):
            return self.constant + self._paths(decisions).sum()
        return self.forward(Decisions.of(decisions))

    def _paths(self, decisions: Sequence[LayerDecision]) -> Tensor:
        """(L,) expected runtime of multi-path layers; the skip-op is the last choice and free."""
        count = len(self.space.candidates)
        weights = torch.stack([d.paths[:count] for d in decisions if isinstance(d, PathWeights)])
        return (weights * self.entries.flatten(1)).sum(1)


class PaperRuntimeModel(RuntimeModel):
    r"""Eq. 12-17 as written, for the paper's options: kernels 3/5, expansions 3/6, SE 0/0.25/0.5.

    Two approximations against the table: the ratio of the kernels is taken at expansion 6 for
    both expansions (Eq. 13), and SE 0.5 costs what SE 0.25 costs (Eq. 15-16). The indicator that
    Eq. 17 writes with w_0.5\0.25 is read as the one of Eq. 4 that switches SE on.

    Raises:
        UserError: if the space has other options.
    """

    def __init__(self, space: SearchSpace, table: LatencyTable) -> None:
        super().__init__(space, table)
        sizes = (len(space.kernel_sizes), len(space.expansions), len(space.se_ratios))
        if sizes != (2, 2, 3) or space.se_ratios[0] != 0:
            raise UserError(
                f"the runtime model 'paper' is written for two kernel sizes, two expansions and SE "
                f"off or one of two ratios; search space '{space.name}' has {sizes}: use "
                "'interpolation'"
            )

    def layers(self, decisions: Decisions) -> Tensor:
        """(L,) runtime of every searchable layer."""
        kernel, expansion, se = decisions.kernel, decisions.expansion, decisions.se
        keep = decisions.keep[:, 0]
        use_5, use_6, use_se = kernel[:, 1], expansion[:, 1], se[:, 1] + se[:, 2]
        plain = self.entries[:, :, :, 0]  # (L, kernel, expansion)
        scale = self.entries[:, :, :, 1] / plain  # Eq. 14
        by_expansion = keep * (plain[:, 1, 0] + use_6 * (plain[:, 1, 1] - plain[:, 1, 0]))  # Eq. 12
        ratio = plain[:, 0, 1] / plain[:, 1, 1]
        by_both = ratio * by_expansion + by_expansion * (1 - ratio) * use_5  # Eq. 13
        scale_6 = use_5 * scale[:, 1, 1] + (1 - use_5) * scale[:, 0, 1]  # Eq. 15
        scale_3 = use_5 * scale[:, 1, 0] + (1 - use_5) * scale[:, 0, 0]  # Eq. 16
        with_se = (use_6 * scale_6 + (1 - use_6) * scale_3) * by_both
        return (1 - use_se) * by_both + use_se * with_se  # Eq. 17


RUNTIME_MODELS: dict[str, type[RuntimeModel]] = {
    "interpolation": RuntimeModel,
    "paper": PaperRuntimeModel,
}
