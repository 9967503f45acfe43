"""Superkernels against Eq. 1-5 written out by hand, in loops and with explicit masks."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.space import Candidate, SearchLayer, SearchSpace
from search.supernets.decisions import Decision, Decisions, hard_decision
from search.supernets.subsets import Subsets
from search.supernets.superkernel import Parts, SuperMBConv
from tests.search.conftest import nested_weights

LAYERS = [SearchLayer(8, 8, 1), SearchLayer(8, 12, 2)]
INDICATORS = [
    (use5, use3x, use6, *se)
    for use5, use3x, use6 in itertools.product((0.0, 1.0), repeat=3)
    for se in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))  # Eq. 4: the larger ratio extends the smaller
]
"""Of kernel 5, the layer itself, expansion 6, SE ratio 0.25 and SE ratio 0.5."""


def make_layer(space: SearchSpace, layer: SearchLayer) -> SuperMBConv:
    torch.manual_seed(1)
    module = SuperMBConv(layer, space, nn.BatchNorm2d)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5) if value.min() > 0 else value.normal_(0, 0.5)
    return module.eval()


def parts_of(module: SuperMBConv, decision: Decision) -> Parts:
    """What a decision leaves of a layer."""
    weight = module.depthwise.conv.weight
    subsets = Subsets([module]).to(weight.dtype)
    decisions = Decisions.of([decision])
    return subsets.parts([module], subsets.kernels([module]), decisions, weight.dtype)[0]


def by_hand(module: SuperMBConv, x: Tensor, use5: Any, use3x: Any, use6: Any,
            use25: Any, use50: Any) -> Tensor:  # fmt: skip
    """Eq. 1-5 with indicators as numbers; subsets are zeroed on the *feature maps*."""
    y = module.expand(x)
    weight = module.depthwise.conv.weight.clone()
    for row, column in itertools.product(range(5), range(5)):
        if row in (0, 4) or column in (0, 4):
            weight[:, :, row, column] *= use5  # Eq. 1
    channels = weight.shape[0]
    y = F.conv2d(y, weight, stride=module.layer.stride, padding=2, groups=channels)
    y = F.relu(module.depthwise.norm(y))
    # Eq. 3, inner indicator
    used = [
        y[:, channel] * (use6 if channel >= channels // 2 else 1) for channel in range(channels)
    ]
    y = torch.stack(used, 1)
    squeeze = channels // 2
    pooled = y.mean((2, 3), keepdim=True)
    hidden = F.relu(module.se.reduce(pooled))
    units = []
    for unit in range(squeeze):
        # Eq. 4; the ratio is of the path's input, which expansion 3 halves
        wide = 1.0 if unit < squeeze // 2 else use50
        narrow = float(unit < squeeze // 4) + (squeeze // 4 <= unit < squeeze // 2) * use50
        units.append(hidden[:, unit] * use25 * (use6 * wide + (1 - use6) * narrow))
    gate = module.se.expand(torch.stack(units, 1)).sigmoid()
    y = y * ((1 - use25) + use25 * gate)
    y = module.project(y)
    if module.layer.droppable:
        y = y * use3x  # Eq. 3, outer indicator
    return x + y if module.residual else y


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("indicators", INDICATORS)
def test_every_decision_equals_the_equations(
    space: SearchSpace, layer: SearchLayer, indicators: tuple[float, ...]
) -> None:
    use5, use3x, use6, use25, use50 = indicators
    module = make_layer(space, layer)
    keep = use3x if layer.droppable else 1.0
    decision = Decision(
        nested_weights(torch.tensor([use5])),
        nested_weights(torch.tensor([use6])),
        nested_weights(torch.tensor([use25, use50])),
        torch.tensor(keep),
    )
    module.parts = parts_of(module, decision)
    x = torch.randn(2, layer.in_channels, 9, 9)
    with torch.no_grad():
        expected = by_hand(module, x, *indicators)
        torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


def test_relaxed_kernel_is_equation_18(space: SearchSpace) -> None:
    """Between 0 and 1 the layer computes with the weighted sum of the kernels of Eq. 18."""
    module, fixed = make_layer(space, LAYERS[0]), make_layer(space, LAYERS[0])
    whole = hard_decision(space, space.candidates[-1])
    module.parts = parts_of(module, dataclasses.replace(whole, kernel=torch.tensor([0.3, 0.7])))
    with torch.no_grad():
        weight = fixed.depthwise.conv.weight
        inner = F.pad(weight[:, :, 1:4, 1:4], (1, 1, 1, 1))
        weight.copy_(0.3 * inner + 0.7 * weight)
        fixed.parts = parts_of(fixed, whole)
        x = torch.randn(2, 8, 9, 9)
        torch.testing.assert_close(module(x), fixed(x), rtol=1e-5, atol=1e-5)


def test_skipped_layer_is_the_identity(space: SearchSpace) -> None:
    module = make_layer(space, LAYERS[0])
    module.parts = parts_of(module, hard_decision(space, None))
    x = torch.randn(2, 8, 7, 7)
    assert torch.equal(module(x), x)


def test_se_off_is_the_identity(space: SearchSpace) -> None:
    """Ratio 0 must not scale: σ(bias) would halve the maps."""
    module = make_layer(space, LAYERS[0])
    parts = parts_of(module, hard_decision(space, Candidate(1, 1, 0)))
    y = torch.randn(2, module.channel_groups.shape[1], 5, 5)
    torch.testing.assert_close(module._excite(y, parts), y, rtol=0, atol=0)


def test_gradients_equal_those_of_masked_maps(space: SearchSpace) -> None:
    """Scaling weights gives every decision the gradient that scaling feature maps gives."""
    module = make_layer(space, LAYERS[0]).double()
    x, target = torch.randn(2, 2, 8, 9, 9, dtype=torch.float64)
    values = torch.tensor([0.6, 0.4, 0.8, 0.7, 0.9], dtype=torch.float64)
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    use5, use3x, use6, use25, use50 = ours
    decision = Decision(
        nested_weights(use5[None]),
        nested_weights(use6[None]),
        nested_weights(torch.stack([use25, use50])),
        use3x,
    )
    module.parts = parts_of(module, decision)
    (module(x) * target).sum().backward()
    (by_hand(module, x, *theirs) * target).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert theirs.grad.abs().min() > 1e-3
    torch.testing.assert_close(ours.grad, theirs.grad)
