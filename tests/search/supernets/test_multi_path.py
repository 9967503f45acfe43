"""The multi-path supernet against Eq. 6 written out, and against the networks it exports."""

from __future__ import annotations

import math
import random

import pytest
import torch

from backbones import LatencyTable, UserError
from backbones.blocks import MBConv
from backbones.latency import predict_runtime
from search.selection.runtime import PaperRuntimeModel, RuntimeModel
from search.space import SearchSpace
from search.supernets.decisions import PathWeights
from search.supernets.export import export_network
from search.supernets.multi_path import MultiPathLayer, MultiPathSupernet, gumbel_weights


@pytest.fixture(scope="module")
def slim(space: SearchSpace) -> SearchSpace:
    return space.scaled(0.5)


@pytest.fixture(scope="module")
def supernet(slim: SearchSpace) -> MultiPathSupernet:
    torch.manual_seed(0)
    supernet = MultiPathSupernet(slim, 5)
    with torch.no_grad():
        for logits in supernet.path_logits:
            logits.normal_()
        for name, value in supernet.state_dict().items():
            if "running_var" in name:
                value.uniform_(0.5, 1.5)
            elif "norm" in name and value.is_floating_point():
                value.add_(torch.randn(value.shape) * 0.3)
    return supernet


def test_output_is_the_weighted_sum_of_all_paths(supernet: MultiPathSupernet) -> None:
    """Eq. 6, path by path; the skip-op's path is the identity."""
    layer = supernet.searchable_layers[1]
    assert isinstance(layer, MultiPathLayer) and len(layer.paths) == 13
    x = torch.randn(2, supernet.space.layers[1].in_channels, 10, 10)
    alphas = torch.randn(13).softmax(0)
    layer.decision = PathWeights(alphas)
    layer.eval()
    expected = alphas[12] * x
    for index in range(12):
        expected = expected + alphas[index] * layer.paths[index](x)
    torch.testing.assert_close(layer(x), expected)


def test_eval_mode_is_the_exported_network(supernet: MultiPathSupernet) -> None:
    supernet.eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        choices = supernet.choices()
        network = export_network(supernet, choices, supernet.space.architecture(choices, "found"))
        torch.testing.assert_close(network(x), supernet(x), atol=1e-5, rtol=1e-5)


def test_runs_as_any_network(supernet: MultiPathSupernet, rng: random.Random) -> None:
    supernet.eval()
    x = torch.randn(2, 3, 64, 64)
    for _ in range(5):
        choices = supernet.space.sample(rng)
        network = export_network(supernet, choices, supernet.space.architecture(choices, "drawn"))
        with torch.no_grad(), supernet.using(choices):
            torch.testing.assert_close(network(x), supernet(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", [RuntimeModel, PaperRuntimeModel])
def test_runtime_is_the_expectation_over_paths(
    space: SearchSpace, table: LatencyTable, model: type[RuntimeModel]
) -> None:
    """Against a loop over layers and candidates, each predicted as a network of its own."""
    torch.manual_seed(1)
    weights = [torch.randn(len(space.choices(layer))).softmax(0) for layer in space.layers]
    smallest = space.choices_of(space.uniform(space.candidates[0]))
    base = predict_runtime(space.architecture(smallest, "base"), table)
    expected = base
    for index, layer in enumerate(space.layers):
        for choice, weight in zip(space.choices(layer), weights[index].tolist(), strict=True):
            one = [*smallest[:index], choice, *smallest[index + 1 :]]
            expected += weight * (predict_runtime(space.architecture(one, "one"), table) - base)
    found = model(space, table)([PathWeights(row) for row in weights])
    assert float(found) == pytest.approx(expected, abs=1e-3)


def test_every_path_weight_gets_a_gradient(slim: SearchSpace) -> None:
    torch.manual_seed(0)
    supernet = MultiPathSupernet(slim, 5, path_weights="gumbel").train()
    supernet(torch.randn(4, 3, 64, 64)).square().sum().backward()
    for logits in supernet.decision_parameters():
        assert logits.grad is not None
        assert (logits.grad.abs() > 1e-7).all()


def test_gumbel_samples_follow_the_probabilities() -> None:
    """The largest weight falls on a path as often as the softmax says (Gumbel-max)."""
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0])
    hits = torch.stack([gumbel_weights([logits], 0.5)[0].argmax() for _ in range(4000)])
    torch.testing.assert_close(
        torch.bincount(hits, minlength=3) / 4000, logits.softmax(0), atol=0.03, rtol=0
    )


def test_paths_are_weighed_at_the_temperature(slim: SearchSpace) -> None:
    """Softmax of τ / T; Gumbel's samples differ from draw to draw, and use every path in part."""
    for kind in ("softmax", "gumbel"):
        supernet = MultiPathSupernet(slim, 2, path_weights=kind, temperature=0.5).train()
        with torch.no_grad():
            supernet.path_logits[1].copy_(torch.arange(13) / 10)
        exact = [math.exp(index / 10 / 0.5) for index in range(13)]
        expected = torch.tensor(exact) / sum(exact)
        torch.testing.assert_close(supernet.relaxed_decisions()[1].paths, expected)
        draws = []
        for _ in range(2):
            supernet.decide()
            decision = supernet.decisions[1]
            assert isinstance(decision, PathWeights)
            assert decision.paths.min() > 0 and decision.paths.max() < 1
            draws.append(decision.paths.detach())
        assert torch.equal(*draws) == (kind == "softmax")
        if kind == "softmax":
            torch.testing.assert_close(draws[0], expected)


def test_scaled_space_keeps_the_choices(space: SearchSpace) -> None:
    half = space.scaled(0.5)
    assert [layer.droppable for layer in half.layers] == [la.droppable for la in space.layers]
    assert half.largest().layers == space.largest().scaled(0.5).layers
    with pytest.raises(UserError, match="width_mult is 0"):
        space.scaled(0)


def test_every_residual_branch_is_scaled() -> None:
    supernet = MultiPathSupernet(SearchSpace.load("digits_small"), 10, residual_scale=0.05)
    branches = [m for m in supernet.modules() if isinstance(m, MBConv) and m.residual]
    assert branches
    for branch in branches:
        assert branch.project.norm.weight.unique().tolist() == [pytest.approx(0.05)]
