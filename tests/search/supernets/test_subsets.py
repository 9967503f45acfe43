"""All layers at once, against one layer after the other by the equations."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.blocks import SqueezeExcite
from search.space import SearchSpace
from search.supernets.single_path import Supernet
from search.supernets.superkernel import SuperMBConv
from tests.search.conftest import randomize

SPACES: dict[str, dict[str, Any]] = {
    "three of each": {},
    "no SE": {"se_ratios": (0,)},
    "always SE": {"se_ratios": (0.25, 0.5)},
    "one kernel": {"kernel_sizes": (5,)},
    "one expansion": {"expansions": (4,)},
    "nothing but the skip-op": {"kernel_sizes": (3,), "expansions": (4,), "se_ratios": (0.25,)},
}


def log_ratio(subset: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Of the mean squares of two sets of weights."""

    def mean(parts: Sequence[Tensor]) -> float:
        return float(torch.cat([part.flatten() for part in parts]).double().square().mean())

    return math.log(mean(subset)) - math.log(mean(reference))


def importances(layer: SuperMBConv, used_kernels: int) -> list[float]:
    """Eq. 2-4 with hard indicators: which weights a layer's decisions are about, cut out of it.

    Args:
        layer: the superkernel.
        used_kernels: rings that the decisions on kernels use beside the core.
    """
    space, search_layer = layer.space, layer.layer
    weight = layer.depthwise.conv.weight.detach()[:, 0]
    side = weight.shape[-1]
    index = torch.arange(side)
    distance = torch.maximum((index[:, None] - side // 2).abs(), (index - side // 2).abs())

    def ring(number: int) -> Tensor:
        inner = space.kernel_sizes[number - 1] // 2 if number else -1
        return (distance > inner) & (distance <= space.kernel_sizes[number] // 2)

    rings = [weight[:, ring(number)] for number in range(len(space.kernel_sizes))]
    found = [log_ratio([rings[n]], rings[:n]) for n in range(1, len(rings))]

    kernel = torch.cat(rings[: used_kernels + 1], 1)
    counts = [round(search_layer.in_channels * expansion) for expansion in space.expansions]
    starts = [0, *counts[:-1]]
    groups = [kernel[a:b] for a, b in zip(starts, counts, strict=True)]
    found += [log_ratio([groups[n]], groups[:n]) for n in range(1, len(groups))]

    if isinstance(layer.se, SqueezeExcite):
        rows = layer.se.reduce.weight.detach().flatten(1)
        widths = [int(counts[-1] * ratio) for ratio in space.se_ratios]
        added = [rows[a:b] for a, b in itertools.pairwise(widths)]
        # the first one, which is in no other, is compared with all that is decided about
        found += [log_ratio([a], added[:n] if n else added) for n, a in enumerate(added)]
    found.append(log_ratio(groups[:1], groups))
    return found


@pytest.mark.parametrize("options", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("used", [0, 1])
def test_logits_of_all_layers(wide_space: SearchSpace, options: dict[str, Any], used: int) -> None:
    """At thresholds of 0, with as many rings as the kernel's own thresholds leave."""
    torch.manual_seed(0)
    space = dataclasses.replace(wide_space, **options)
    supernet = Supernet(space, 2)
    randomize(supernet)
    rings = len(space.kernel_sizes) - 1
    used = min(used, rings)
    supernet.eval()
    with torch.no_grad():
        for layer in supernet.superkernels:
            layer.depthwise.conv.weight.mul_(1 + torch.rand(layer.depthwise.conv.weight.shape))
        values = supernet.thresholds.values.zero_()
        values[:, :used], values[:, used:rings] = -100, 100
        found = supernet.logits() + values
    expected = [importances(layer, used) for layer in supernet.superkernels]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_options_that_round_to_the_same_channels(wide_space: SearchSpace) -> None:
    """Nothing is added then, and nothing is not a number."""
    space = dataclasses.replace(wide_space, expansions=(3, 3.01), se_ratios=(0.25, 0.251))
    supernet = Supernet(space, 2).train()
    supernet(torch.randn(2, 3, 32, 32)).square().sum().backward()
    logits = supernet.logits()
    assert torch.isfinite(logits).all()
    assert supernet.thresholds.values.grad is not None
    for parameter in supernet.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
