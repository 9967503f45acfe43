"""What both kinds of supernet promise: fixed choices for a while, exports of their own, a start."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from backbones import LatencyTable, predict_runtime
from backbones.blocks import MBConv
from search.selection.runtime import RuntimeModel
from search.space import SearchSpace
from search.supernets.decisions import Decision
from search.supernets.export import export_network, exported_state
from search.supernets.multi_path import MultiPathSupernet
from search.supernets.one_shot import OneShot
from search.supernets.single_path import Supernet
from tests.search.conftest import randomize

KINDS = [Supernet, MultiPathSupernet]
Kind = Callable[..., OneShot]


@pytest.fixture(scope="module")
def small(space: SearchSpace) -> SearchSpace:
    """Two layers a stage, at half the width."""
    stages = tuple(dataclasses.replace(stage, num_layers=2) for stage in space.stages)
    return dataclasses.replace(space, stages=stages).scaled(0.5)


def choices_in(supernet: OneShot) -> list[object]:
    """What the searchable layers are at the moment."""
    assert all(isinstance(decision, Decision) for decision in supernet.drawn)
    return [decision.choice() for decision in supernet.drawn if isinstance(decision, Decision)]


@pytest.mark.parametrize("kind", KINDS)
def test_fixed_choices_end_with_their_block(
    small: SearchSpace, rng: random.Random, kind: Kind
) -> None:
    """Also in one another, and after an error."""
    supernet = kind(small, 2).eval()
    outer, inner = small.sample(rng), small.sample(rng)

    def broken() -> None:
        with supernet.using(inner):
            supernet.prepare()
            assert choices_in(supernet) == inner
            raise KeyError("broken")

    with supernet.using(outer):
        with pytest.raises(KeyError, match="broken"):
            broken()
        supernet.prepare()
        assert choices_in(supernet) == outer
    assert supernet.forced is None
    before = list(supernet.decisions)
    supernet.prepare()
    assert all(new is not old for new, old in zip(supernet.decisions, before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_runtime_is_that_of_the_fixed_choices(
    space: SearchSpace, table: LatencyTable, rng: random.Random, kind: Kind
) -> None:
    supernet, choices = kind(space.scaled(0.5), 2), space.sample(rng)
    with supernet.using(choices):
        supernet.prepare()
        found = float(RuntimeModel(space, table)(supernet.decisions))
    expected = predict_runtime(space.architecture(choices, "fixed"), table)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_an_export_is_a_network_of_its_own(
    small: SearchSpace, rng: random.Random, kind: Kind, training: bool
) -> None:
    """In the supernet's mode, with its dropout, and without a tensor in common."""
    supernet = kind(small, 2, 0.3).train(training)
    choices = small.sample(rng)
    assert None in choices
    network = export_network(supernet, choices, small.architecture(choices, "exported"))
    assert network.training == training
    assert network.dropout.p == 0.3
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    with torch.no_grad():
        for state in (network.state_dict(), exported_state(supernet, choices)):
            for value in state.values():
                value.fill_(3)
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_residual_branches_alone_start_small(small: SearchSpace, kind: Kind) -> None:
    supernet = kind(small, 2, residual_scale=0.3)
    begin = len(small.first)
    searched = list(supernet.layers)[begin : begin + len(small.layers)]
    blocks = [b for layer in searched for b in layer.modules() if isinstance(b, MBConv)]
    assert {block.residual for block in blocks} == {True, False}
    for block in blocks:
        scale = block.project.norm.weight
        torch.testing.assert_close(scale, torch.full_like(scale, 0.3 if block.residual else 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_confidence_is_relaxed_and_has_no_gradient(small: SearchSpace, kind: Kind) -> None:
    supernet = kind(small, 2).train()
    with torch.no_grad():
        for parameter in supernet.decision_parameters():
            parameter.normal_()
    supernet.prepare()
    assert len(supernet.confidence) == len(small.layers)
    for ours, relaxed in zip(supernet.confidence, supernet.relaxed_decisions(), strict=True):
        for name, value in vars(ours).items():
            assert not value.requires_grad
            torch.testing.assert_close(value, vars(relaxed)[name].detach())
            assert len(set(value.flatten().tolist()) - {0.0, 1.0}) >= (name != "keep")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"se_ratios": (0,)},
        {"se_ratios": (0.25, 0.5)},
        {"kernel_sizes": (3, 5, 7), "expansions": (1.9, 4, 6)},
    ],
    ids=["no SE", "always SE", "three of each"],
)
def test_other_options_export_exactly_too(
    small: SearchSpace, rng: random.Random, kind: Kind, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    other = dataclasses.replace(small, **options)
    supernet = kind(other, 3)
    randomize(supernet)
    supernet.eval()
    images = torch.randn(1, 3, 64, 64)
    for _ in range(3):
        choices = other.sample(rng)
        network = export_network(supernet, choices, other.architecture(choices, "drawn"))
        with torch.no_grad(), supernet.using(choices):
            expected, found = network(images), supernet(images)
        assert expected.abs().max() > 1e-2
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_fixed_layers_follow_one_another(small: SearchSpace, kind: Kind) -> None:
    """Several of them, of different widths, at both ends."""
    (first,), (last,) = small.first, small.last
    wider = dataclasses.replace(last, out_channels=first.out_channels + 8, stride=1)
    ends = {"first": (first, wider), "last": (last, dataclasses.replace(last, out_channels=64))}
    other = dataclasses.replace(small, **ends)
    supernet = kind(other, 2).eval()
    assert supernet(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
