"""Supernet and exported network agree; thresholds decide, and get gradients at full width."""

from __future__ import annotations

import math
import random

import pytest
import torch
import torch.nn.functional as F

from backbones import LatencyTable, UserError, predict_runtime
from backbones.blocks import MBConv, SqueezeExcite
from search.selection.runtime import RuntimeModel
from search.space import Choice, SearchSpace
from search.supernets.export import export_network
from search.supernets.single_path import Supernet
from search.supernets.superkernel import SuperMBConv
from search.supernets.thresholds import (
    sigmoid_gate,
    straight_through_gate,
)
from tests.search.conftest import randomized_supernet


@pytest.fixture(scope="module")
def supernet(space: SearchSpace) -> Supernet:
    return randomized_supernet(space)


def disagreement(supernet: Supernet, choices: list[Choice], seed: int) -> float:
    """Largest difference of logits over their scale, on random images of a random size."""
    space = supernet.space
    generator = torch.Generator().manual_seed(seed)
    size = (32, 64, 47)[seed % 3]
    images = torch.randn(1, 3, size, 96 - size, generator=generator)
    network = export_network(supernet, choices, space.architecture(choices, "exported"))
    with torch.no_grad(), supernet.using(choices):
        ours, theirs = supernet(images), network(images)
    assert theirs.abs().max() > 1e-2
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_every_type_in_every_position(supernet: Supernet, rng: random.Random) -> None:
    """Each of the 13 types at each of the 20 layers, the other layers drawn at random."""
    space = supernet.space
    covered = set()
    for shift in range(13):
        choices: list[Choice] = []
        for index, layer in enumerate(space.layers):
            options = space.choices(layer)
            choices.append(options[(index + shift) % len(options)])
            covered.add((index, choices[-1]))
        assert disagreement(supernet, choices, shift) < 1e-5
    assert len(covered) == sum(len(space.choices(layer)) for layer in space.layers) == 255


@pytest.mark.slow
def test_fifty_random_networks(supernet: Supernet, rng: random.Random) -> None:
    for seed in range(50):
        assert disagreement(supernet, supernet.space.sample(rng), seed) < 1e-5


def test_eval_mode_is_the_decided_network(supernet: Supernet, rng: random.Random) -> None:
    """Under its own thresholds, without being told the choices."""
    space = supernet.space
    wanted = space.sample(rng)
    with torch.no_grad():
        signs = [threshold_signs(choice) for choice in wanted]
        supernet.thresholds.values.copy_(torch.tensor(signs) * -100.0)
    assert supernet.choices() == wanted
    images = torch.randn(2, 3, 64, 64)
    network = export_network(supernet, wanted, space.architecture(wanted, "decided"))
    with torch.no_grad():
        torch.testing.assert_close(supernet(images), network(images), rtol=1e-5, atol=1e-5)
    supernet.thresholds.values.data.zero_()


def threshold_signs(choice: Choice) -> list[float]:
    """+1 for every decision that ``choice`` uses, -1 for the others."""
    if choice is None:
        return [1.0, 1.0, 1.0, 1.0, -1.0]
    used = [choice.kernel >= 1, choice.expansion >= 1, choice.se >= 1, choice.se >= 2]
    return [1.0 if use else -1.0 for use in used] + [1.0]


def test_exported_types_and_shapes(supernet: Supernet, rng: random.Random) -> None:
    space = supernet.space
    choices = space.sample(rng)
    network = export_network(supernet, choices, space.architecture(choices, "exported"))
    found, expected = [], []
    for layer, module, choice in zip(
        space.layers, list(network.layers)[1:-1], choices, strict=True
    ):
        if isinstance(module, MBConv):
            depthwise = module.depthwise.conv
            squeezed = module.se.reduce.out_channels if isinstance(module.se, SqueezeExcite) else 0
            found.append((depthwise.kernel_size[0], depthwise.out_channels, squeezed))
        else:
            found.append(type(module))
        if choice is None:
            expected.append(torch.nn.Identity)
        else:
            channels = layer.in_channels * (3, 6)[choice.expansion]
            squeezed = int(channels * (0, 0.25, 0.5)[choice.se])
            expected.append(((3, 5)[choice.kernel], channels, squeezed))
    assert found == expected
    assert torch.nn.Identity in found and len(set(found)) > 5


def test_energy_equals_a_loop(space: SearchSpace) -> None:
    """Subsets and sizes of Eq. 2-4, summed element by element."""
    torch.manual_seed(3)
    supernet = Supernet(space, 2)
    layers, subsets = supernet.superkernels, supernet.thresholds.subsets
    layer = layers[1]
    energies = subsets.energies(layers, subsets.kernels(layers)).detach()
    kernel = subsets.kernel_energy(energies)
    weight = layer.depthwise.conv.weight.detach()
    squeeze = layer.se.reduce.weight.detach()
    half, quarter = weight.shape[0] // 2, squeeze.shape[0] // 2
    for use5 in (0.0, 1.0):
        other = subsets.other_energy(energies, torch.tensor([[1.0, use5]]).repeat(20, 1))
        sums, sizes = dict.fromkeys("krgh", 0.0), dict.fromkeys("krgh", 0.0)
        for (channel, _, row, column), value in zip(
            ((c, 0, i, j) for c in range(weight.shape[0]) for i in range(5) for j in range(5)),
            weight.flatten().tolist(),
            strict=True,
        ):
            shell = row in (0, 4) or column in (0, 4)
            key = "r" if shell else "k"
            sums[key] += value**2
            sizes[key] += 1
            if not shell or use5:
                key = "g" if channel < half else "h"
                sums[key] += value**2
                sizes[key] += 1
        squeezes = [squeeze[:quarter].square().sum(), squeeze[quarter:].square().sum()]
        expected = [sums["r"], sums["h"], *map(float, squeezes), sums["g"]]
        squares = torch.cat([kernel.squares.view(20, 2, -1), other.squares.view(20, 2, -1)], 2)[1]
        counts = torch.cat([kernel.sizes.view(20, 2, -1), other.sizes.view(20, 2, -1)], 2)[1]
        torch.testing.assert_close(squares[0], torch.tensor(expected), rtol=1e-4, atol=1e-4)
        size = squeeze[:quarter].numel()
        assert counts[0].tolist() == [sizes["r"], sizes["h"], size, size, sizes["g"]]
        total_size = sizes["g"] + sizes["h"]
        assert counts[1].tolist() == [sizes["k"], sizes["g"], 2 * size, size, total_size]
        total, squeezed = sums["g"] + sums["h"], float(squeezes[0] + squeezes[1])
        reference = [sums["k"], sums["g"], squeezed, float(squeezes[0]), total]
        torch.testing.assert_close(squares[1], torch.tensor(reference), rtol=1e-4, atol=1e-4)


def test_relative_importance_ignores_scale_and_width(space: SearchSpace) -> None:
    supernet = Supernet(space, 2)
    layer = supernet.superkernels[5]
    before = supernet.logits()[5].detach()
    with torch.no_grad():
        layer.depthwise.conv.weight.mul_(7)
        layer.se.reduce.weight.mul_(0.1)
    torch.testing.assert_close(supernet.logits()[5], before, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        layer.depthwise.conv.weight.mul_(1 - 0.9 * layer.kernel_rings[1])
    weaker = supernet.logits()[5].detach()
    assert float(weaker[0] - before[0]) == pytest.approx(2 * math.log(0.1), rel=1e-3)


@pytest.mark.parametrize("importance", ["relative", "norm"])
def test_every_threshold_has_a_gradient_at_full_width(space: SearchSpace, importance: str) -> None:
    """At step 0 of the ImageNet space, from the cross entropy alone."""
    torch.manual_seed(0)
    supernet = Supernet(space, 10, importance=importance).train()
    images, targets = torch.randn(4, 3, 64, 64), torch.tensor([1, 2, 3, 4])
    F.cross_entropy(supernet(images), targets).backward()
    gradients = supernet.thresholds.values.grad
    assert gradients is not None
    assert int(supernet.known.sum()) == 95
    assert torch.equal(gradients != 0, supernet.known)
    for index, gradient in enumerate(gradients, 1):
        # the squeeze decisions of the last layers see 2 x 2 maps of 4 images: small, but not dead
        assert gradient.abs().max() > 1e-5, index


@pytest.mark.parametrize("importance", ["relative", "norm", "none"])
def test_the_runtime_pulls_thresholds_by_what_options_cost(
    space: SearchSpace, table: LatencyTable, importance: str
) -> None:
    """By d log R / dt = -σ′(2) · (runtime that the option adds) / R, at the start."""
    supernet = Supernet(space, 2, importance=importance).train()
    supernet.decide()
    RuntimeModel(space, table)(supernet.decisions).log().backward()
    sigmoid = 1 / (1 + math.exp(-2))
    scale = -sigmoid * (1 - sigmoid) / predict_runtime(space.largest(), table)
    gradients = supernet.thresholds.values.grad
    assert gradients is not None and len(gradients) == 20
    for layer, gradient, row in zip(supernet.superkernels, gradients, table.layers, strict=True):
        kernel, expansion, *se_and_keep = gradient.tolist()
        cost = {str(layer_type): runtime for layer_type, runtime in row.runtimes.items()}
        added = cost["5x5-6"] - cost["5x5-3"]
        # the table has no SE factors: these cost nothing
        expected = [added, 0, 0, cost["5x5-6"] * layer.layer.droppable]
        expected = [scale * value for value in expected]
        assert [expansion, *se_and_keep] == pytest.approx(expected, rel=1e-3, abs=1e-8)
        if importance == "none":  # else the kernel also decides what the expansion is judged by
            assert kernel == pytest.approx(scale * (cost["5x5-6"] - cost["3x3-6"]), rel=1e-3)
        assert kernel < 0


def test_the_literal_formula_is_dead_at_full_width(space: SearchSpace) -> None:
    """Why it is not the default: σ′(‖w‖²) is 0 in single precision for wide layers."""
    supernet = Supernet(space, 10, importance="literal").train()
    F.cross_entropy(supernet(torch.randn(2, 3, 32, 32)), torch.tensor([1, 2])).backward()
    assert supernet.thresholds.values.grad is not None
    assert supernet.thresholds.values.grad[1:, 0].tolist() == [0.0] * 19


@pytest.mark.parametrize(
    ("gate", "slope"),
    [
        (sigmoid_gate, lambda z: 1 / (1 + math.exp(-z)) * (1 - 1 / (1 + math.exp(-z)))),
        (straight_through_gate, lambda z: 1.0),
    ],
)
def test_gates_are_indicators_with_their_own_slopes(gate, slope) -> None:
    logits = torch.tensor([-2.0, -0.1, 0.0, 0.1, 3.0], requires_grad=True)
    gates = gate(logits)
    torch.testing.assert_close(gates.detach(), torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0]))
    gates.sum().backward()
    expected = torch.tensor([slope(z) for z in logits.tolist()])
    torch.testing.assert_close(logits.grad, expected)


def test_subset_dropout_drops_and_never_rescales(space: SearchSpace) -> None:
    torch.manual_seed(0)
    supernet = Supernet(space, 2).train()
    supernet.subset_dropout = 0.4
    kept = []
    with torch.no_grad():
        for _ in range(40):
            supernet.decide()
            for drawn, decision in zip(supernet.drawn, supernet.decisions, strict=True):
                for weight in vars(drawn).values():
                    assert set(weight.flatten().tolist()) <= {0.0, 1.0}
                kept.append(float(drawn.kernel[1]))
                assert float(decision.kernel[1]) == 1.0  # the runtime sees the decision itself
    assert sum(kept) / len(kept) == pytest.approx(0.6, abs=0.06)
    supernet.eval()
    supernet.decide()
    assert all(float(drawn.kernel[1]) == 1.0 for drawn in supernet.drawn)


@pytest.mark.parametrize("argument", ["relaxation", "importance"])
def test_unknown_formulation(space: SearchSpace, argument: str) -> None:
    with pytest.raises(UserError, match=f"unknown {argument} 'magic'; expected one of"):
        Supernet(space, 2, **{argument: "magic"})


def test_initial_decisions_use_everything(space: SearchSpace) -> None:
    supernet = Supernet(space, 2, initial_logit=1.5)
    for logits in supernet.logits():
        torch.testing.assert_close(logits, torch.full_like(logits, 1.5), rtol=1e-4, atol=1e-4)
    assert len(supernet.logits()) == 20
    assert set(supernet.choices()) == {space.candidates[-1]}


@pytest.mark.parametrize("importance", ["relative", "norm", "none"])
def test_logits_are_temperatures_above_the_threshold(space: SearchSpace, importance: str) -> None:
    """One below moves a logit by 1 / temperature, wherever it starts, and a reset takes it back."""
    supernet = Supernet(space, 2, importance=importance, temperature=0.25, initial_logit=1.5)
    with torch.no_grad():
        for parameter in supernet.thresholds.parameters():
            parameter.sub_(1.0)
    for logits, decision in zip(supernet.logits(), supernet.relaxed_decisions(), strict=True):
        torch.testing.assert_close(logits, torch.full_like(logits, 5.5), rtol=1e-4, atol=1e-4)
        assert decision.kernel[1].item() == pytest.approx(1 / (1 + math.exp(-5.5)), abs=1e-5)
    with torch.no_grad():
        for layer in supernet.superkernels:
            layer.depthwise.conv.weight.mul_(torch.rand(5, 5))
    supernet.reset_thresholds()
    for logits in supernet.logits():
        torch.testing.assert_close(logits, torch.full_like(logits, 1.5), rtol=1e-4, atol=1e-4)


def test_what_twice_the_weights_mean(space: SearchSpace) -> None:
    """‖w‖² is four times as much: in units of its start, as it is, and not at all."""
    found = {}
    for importance in ("relative", "norm", "none"):
        supernet = Supernet(space.scaled(0.5), 2, importance=importance, initial_logit=2.0)
        with torch.no_grad():
            for parameter in supernet.superkernels[3].parameters():
                parameter.mul_(2)
        found[importance] = supernet.logits()[3][:2].tolist()
    assert found["relative"] == pytest.approx([2.0, 2.0], abs=1e-4)
    assert found["none"] == pytest.approx([2.0, 2.0], abs=1e-4)
    assert found["norm"] == pytest.approx([4 - 1 + 2] * 2, rel=1e-4)
    literal = Supernet(space.scaled(0.5), 2, importance="literal")
    weight = literal.superkernels[3].depthwise.conv.weight.detach()[:, 0]
    shell = float(weight.square().sum() - weight[:, 1:4, 1:4].square().sum())
    assert literal.logits()[3][0].item() == pytest.approx(shell, rel=1e-4)


def test_a_kernel_is_weighed_with_the_gate_that_it_passed(space: SearchSpace) -> None:
    """w_k of Eq. 3: without its shell, the kernel's core alone judges the expansion."""
    torch.manual_seed(0)
    supernet = Supernet(space, 2)
    layer, values = supernet.superkernels[1], supernet.thresholds.values
    with torch.no_grad():
        values[1, 0] = 100.0  # off
        layer.depthwise.conv.weight[:, :, 1:4, 1:4].mul_(
            torch.linspace(1, 9, 144)[:, None, None, None]
        )
    core = layer.depthwise.conv.weight.detach()[:, 0, 1:4, 1:4].double().square().mean((1, 2))
    halves = core[:72].mean(), core[72:].mean()
    threshold = float(values.detach()[1, 1])
    expected = math.log(float(halves[1] / halves[0])) - threshold
    assert float(supernet.logits().detach()[1, 1]) == pytest.approx(expected, abs=1e-4)


def test_decisions_are_made_in_single_precision(space: SearchSpace) -> None:
    """Under mixed precision, too: half of the digits would move decisions by themselves."""
    supernet = Supernet(space.scaled(0.5), 2)
    expected = supernet.logits()
    with torch.autocast("cpu", torch.bfloat16):
        found = supernet.logits()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_softmax_uses_options_in_part_and_exports_whole_ones(space: SearchSpace) -> None:
    """Eq. 18: w = p_3·w_3x3 + p_5·w_5x5 with p = softmax(τ); in eval mode an exact network."""
    torch.manual_seed(0)
    supernet = Supernet(space, 10, relaxation="softmax", importance="none", initial_logit=0.0)
    with torch.no_grad():
        supernet.thresholds.values.uniform_(-2, 2)
    supernet.train()
    supernet(torch.randn(2, 3, 96, 96)).sum().backward()
    for index, tau in enumerate(-supernet.thresholds.values.detach()):
        expected = torch.stack([torch.zeros(()), tau[0]]).softmax(0)
        for decisions in (supernet.drawn, supernet.decisions):
            torch.testing.assert_close(decisions[index].kernel.detach(), expected)
    assert torch.equal(supernet.thresholds.values.grad != 0, supernet.known)
    supernet.eval()
    choices = supernet.choices()
    assert {None} < set(choices)
    network = export_network(supernet, choices, space.architecture(choices, "softmax"))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(supernet(images), network(images), rtol=1e-4, atol=1e-5)


def test_searchable_residual_branches_alone_are_scaled() -> None:
    """The small space also has a fixed residual layer, which starts as a fixed network's does."""
    supernet = Supernet(SearchSpace.load("digits_small"), 10, residual_scale=0.05)
    branches = [m for m in supernet.modules() if isinstance(m, MBConv) and m.residual]
    assert {isinstance(branch, SuperMBConv) for branch in branches} == {True, False}
    for branch in branches:
        scale = 0.05 if isinstance(branch, SuperMBConv) else 1.0
        assert branch.project.norm.weight.unique().tolist() == [pytest.approx(scale)]
