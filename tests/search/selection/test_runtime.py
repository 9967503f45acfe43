"""The runtime model against the table, and against Eq. 12-17 written out by hand."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

import pytest
import torch

from backbones import LatencyTable, UserError, predict_runtime
from backbones.latency import LayerRuntimes
from backbones.layer_types import LayerType
from search.profiling.counting import counted_table
from search.selection.runtime import PaperRuntimeModel, RuntimeModel
from search.space import Candidate, Choice, SearchLayer, SearchSpace
from search.supernets.decisions import Decision, Decisions, hard_decision
from tests.search.conftest import nested_weights


@pytest.fixture(scope="module")
def se_table(table: LatencyTable) -> LatencyTable:
    """The Pixel 1 table with an SE factor of its own for every entry."""
    rng = random.Random(1)
    layers = []
    for row in table.layers:
        runtimes = dict(row.runtimes)
        for plain, value in row.runtimes.items():
            for ratio in (0.25, 0.5):
                with_se = dataclasses.replace(plain, se_ratio=ratio)
                runtimes[with_se] = value * rng.uniform(1.0, 1.6)
        layers.append(dataclasses.replace(row, runtimes=runtimes))
    return dataclasses.replace(table, name="with-se", layers=tuple(layers))


def by_name(row: LayerRuntimes) -> dict[str, float]:
    return {str(layer_type): runtime for layer_type, runtime in row.runtimes.items()}


def decisions(space: SearchSpace, choices: list[Choice]) -> Decisions:
    return Decisions.of([hard_decision(space, choice) for choice in choices])


def test_all_types_at_all_layers_equal_the_table(
    space: SearchSpace, se_table: LatencyTable
) -> None:
    """Brute force: the exact interpolation reproduces every entry."""
    model = RuntimeModel(space, se_table)
    for candidate in space.candidates:
        runtimes = model.layers(decisions(space, [candidate] * 20))
        layer_type = space.choice_type(candidate)
        expected = torch.tensor([row.runtimes[layer_type] for row in se_table.layers])
        torch.testing.assert_close(runtimes, expected)
    assert model.layers(decisions(space, [None] * 20)).tolist() == [0.0] * 20


def test_networks_equal_predict_runtime(
    space: SearchSpace, se_table: LatencyTable, rng: random.Random
) -> None:
    model = RuntimeModel(space, se_table)
    for _ in range(50):
        choices = space.sample(rng)
        expected = predict_runtime(space.architecture(choices, "random"), se_table)
        assert float(model(decisions(space, choices))) == pytest.approx(expected, rel=1e-5)


def paper_by_hand(
    row: dict[str, float], use5: float, use3: float, use6: float, use_se: float
) -> float:
    """Eq. 12-17, term by term."""
    r_e = use3 * (row["5x5-3"] + use6 * (row["5x5-6"] - row["5x5-3"]))
    ratio = row["3x3-6"] / row["5x5-6"]
    r_ke = ratio * r_e + r_e * (1 - ratio) * use5
    s = {name: row[f"{name}-0.25"] / row[name] for name in ("3x3-3", "3x3-6", "5x5-3", "5x5-6")}
    s_6 = use5 * s["5x5-6"] + (1 - use5) * s["3x3-6"]
    s_3 = use5 * s["5x5-3"] + (1 - use5) * s["3x3-3"]
    return (1 - use_se) * r_ke + (use_se * use6 * s_6 + use_se * (1 - use6) * s_3) * r_ke


@pytest.mark.parametrize("relaxed", [False, True])
def test_paper_model_equals_the_equations(
    space: SearchSpace, se_table: LatencyTable, rng: random.Random, relaxed: bool
) -> None:
    model = PaperRuntimeModel(space, se_table)
    for _ in range(30):
        values = [
            [rng.random() if relaxed else float(rng.random() < 0.5) for _ in range(5)]
            for _ in range(20)
        ]
        runtimes = model.layers(
            Decisions.of(
                [
                    Decision(
                        nested_weights(torch.tensor([use5])),
                        nested_weights(torch.tensor([use6])),
                        nested_weights(torch.tensor([use25, use50])),
                        torch.tensor(use3),
                    )
                    for use5, use3, use6, use25, use50 in values
                ]
            )
        )
        expected = [
            paper_by_hand(by_name(row), use5, use3, use6, use25)
            for row, (use5, use3, use6, use25, _) in zip(se_table.layers, values, strict=True)
        ]
        torch.testing.assert_close(runtimes, torch.tensor(expected))


def test_paper_model_is_close_to_the_table(space: SearchSpace, table: LatencyTable) -> None:
    """Its approximation (the kernel ratio at expansion 6) costs up to about 5 % a layer."""
    exact, paper = RuntimeModel(space, table), PaperRuntimeModel(space, table)
    worst = 0.0
    for candidate in space.candidates:
        chosen = decisions(space, [candidate] * 20)
        worst = max(worst, float((paper.layers(chosen) / exact.layers(chosen) - 1).abs().max()))
    assert 0.01 < worst < 0.055


def test_gradients_are_differences_of_runtimes(space: SearchSpace, table: LatencyTable) -> None:
    model = RuntimeModel(space, table)
    gates = torch.ones(20, 3, requires_grad=True)
    model(
        [
            Decision(
                nested_weights(row[:1]),
                nested_weights(row[1:2]),
                nested_weights(torch.zeros(2)),
                row[2],
            )
            for row in gates
        ]
    ).backward()
    assert gates.grad is not None
    for row, gradient in zip(table.layers, gates.grad, strict=True):
        runtimes = by_name(row)
        expected = [
            runtimes["5x5-6"] - runtimes["3x3-6"],
            runtimes["5x5-6"] - runtimes["5x5-3"],
            runtimes["5x5-6"],
        ]
        torch.testing.assert_close(gradient, torch.tensor(expected))


def test_table_that_lacks_a_layer(space: SearchSpace, table: LatencyTable) -> None:
    missing = dataclasses.replace(table, layers=(*table.layers[:4], *table.layers[5:]))
    message = r"does not cover search space 'imagenet'.*24 → 40 channels, stride 2 at 56×56"
    with pytest.raises(UserError, match=message):
        RuntimeModel(space, missing)


def test_table_that_lacks_an_entry(space: SearchSpace, table: LatencyTable) -> None:
    row = table.layers[7]
    runtimes = {key: value for key, value in row.runtimes.items() if key != LayerType(5, 6)}
    rows = list(table.layers)
    rows[7] = dataclasses.replace(row, runtimes=runtimes)
    with pytest.raises(UserError, match=r"lacks 1 part, layers\[8\]: 5x5-6"):
        RuntimeModel(space, dataclasses.replace(table, layers=tuple(rows)))


def test_three_options_an_axis(wide_space: SearchSpace) -> None:
    """Multiply-accumulates of all 756 networks, their searchable layers counted by hand."""
    model = RuntimeModel(wide_space, counted_table("macs", wide_space, (32, 32)))

    def macs(layer: SearchLayer, choice: Choice, pixels: int) -> int:
        if choice is None:
            return 0
        kernel, ratio = (3, 5, 7)[choice.kernel], (0, 0.25, 0.5)[choice.se]
        channels = layer.in_channels * (3, 4, 6)[choice.expansion]
        per_pixel = channels * (kernel**2 + layer.out_channels)
        expand = layer.in_channels * channels * pixels * layer.stride**2
        return expand + per_pixel * pixels + 2 * channels * round(channels * ratio)

    for choices in itertools.product(*map(wide_space.choices, wide_space.layers)):
        counted = sum(macs(la, c, 4) for la, c in zip(wide_space.layers, choices, strict=True))
        expected = float(model.constant) + counted / 1e6
        assert float(model(decisions(wide_space, list(choices)))) == pytest.approx(expected)


def test_a_table_of_another_activation(space: SearchSpace, table: LatencyTable) -> None:
    swish = dataclasses.replace(space, activation="hard_swish")
    message = (
        r"'imagenet'.*lacks 20 parts, layers\[1\]: 3x3-3 with activation hard_swish, where the"
    )
    with pytest.raises(UserError, match=message):
        RuntimeModel(swish, table)
    RuntimeModel(swish, dataclasses.replace(table, activation="hard_swish"))


def test_paper_model_refuses_three_options_each(wide_space: SearchSpace) -> None:
    with pytest.raises(UserError, match=r"'wide' has \(3, 3, 3\): use 'interpolation'"):
        PaperRuntimeModel(wide_space, counted_table("macs", wide_space, (32, 32)))


@pytest.mark.parametrize(
    "options",
    [
        {"se_ratios": (0,)},
        {"se_ratios": (0.25, 0.5, 1.0)},  # SE cannot be switched off
        {"kernel_sizes": (3,)},
        {"expansions": (6,)},
    ],
)
def test_paper_model_refuses_other_options(
    space: SearchSpace, table: LatencyTable, options: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="the runtime model 'paper' .* use 'interpolation'"):
        PaperRuntimeModel(dataclasses.replace(space, **options), table)


def test_single_candidates(space: SearchSpace) -> None:
    assert hard_decision(space, Candidate(1, 0, 2)).choice() == Candidate(1, 0, 2)
    assert hard_decision(space, None).choice() is None
