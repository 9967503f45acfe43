"""Selection at a target runtime against brute force, and the controller of λ."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable

import pytest
import torch

from backbones import LatencyTable, UserError, predict_runtime
from search.profiling.counting import counted_table
from search.selection.runtime import RuntimeModel
from search.selection.target import runtime_range, select_at_target
from search.selection.tradeoff import FixedTradeOff, TargetTradeOff
from search.space import Choice, SearchSpace, Stage
from search.supernets.decisions import Decision
from tests.search.conftest import nested_weights


@pytest.fixture(scope="module")
def small(space: SearchSpace, table: LatencyTable) -> tuple[SearchSpace, RuntimeModel]:
    """One layer a stage and two more: 4^5 · 5^2 networks, small enough for brute force."""
    layers = table.layers
    kept = (*layers[:3], layers[4], layers[8], layers[12], layers[16])
    stages = tuple(
        Stage(stage.out_channels, 3 if index == 0 else 1, stage.stride)
        for index, stage in enumerate(space.stages)
    )
    small = dataclasses.replace(space, name="small", stages=stages, se_ratios=(0,))
    return small, RuntimeModel(small, dataclasses.replace(table, layers=kept))


def random_decisions(space: SearchSpace, rng: random.Random) -> list[Decision]:
    decisions = []
    for layer in space.layers:
        kernel, expansion, keep = (rng.uniform(0.02, 0.98) for _ in range(3))
        decisions.append(
            Decision(
                torch.tensor([1 - kernel, kernel]),
                torch.tensor([1 - expansion, expansion]),
                torch.ones(len(space.se_ratios)) / len(space.se_ratios),
                torch.tensor(keep if layer.droppable else 1.0),
            )
        )
    return decisions


def likelihood(decision: Decision, choice: Choice, droppable: bool) -> float:
    keep = float(decision.keep)
    if choice is None:
        return math.log(1 - keep)
    kernel, expansion = decision.kernel[choice.kernel], decision.expansion[choice.expansion]
    return math.log(keep) + math.log(float(kernel)) + math.log(float(expansion))


def log_odds(decision: Decision, choice: Choice, droppable: bool) -> float:
    if choice is None:
        return 0.0
    keep = float(decision.keep)
    value = math.log(keep / (1 - keep)) if droppable else 0.0
    for weights, index in (
        (decision.kernel, choice.kernel),
        (decision.expansion, choice.expansion),
    ):
        value += math.log(float(weights[index] / weights[0]))
    return value


@pytest.mark.parametrize("value_of", [likelihood, log_odds])
@pytest.mark.parametrize("seed", range(3))
def test_selection_equals_brute_force(
    small: tuple[SearchSpace, RuntimeModel],
    seed: int,
    value_of: Callable[[Decision, Choice, bool], float],
) -> None:
    space, model = small
    rng = random.Random(seed)
    decisions = random_decisions(space, rng)
    smallest, largest = runtime_range(space, model)
    target, tolerance = rng.uniform(smallest + 1, largest), 0.05
    best, best_value = None, -math.inf
    for choices in itertools.product(*map(space.choices, space.layers)):
        runtime, value = float(model.constant), 0.0
        for index, (choice, decision) in enumerate(zip(choices, decisions, strict=True)):
            value += value_of(decision, choice, space.layers[index].droppable)
            if choice is not None:
                runtime += float(model.entries[index, choice.kernel, choice.expansion, 0])
        if target * (1 - tolerance) <= runtime <= target * 0.9995 and value > best_value:
            best, best_value = list(choices), value
    found = select_at_target(space, model, decisions, target, tolerance, value_of.__name__)
    assert found == best


@pytest.mark.parametrize("selection", ["log_odds", "likelihood"])
@pytest.mark.parametrize("seed", range(3))
def test_three_options_an_axis_equal_brute_force(
    wide_space: SearchSpace, seed: int, selection: str
) -> None:
    """The most valuable of all 756 networks in the band, each value summed option by option."""
    torch.manual_seed(seed)
    decisions = [
        Decision(
            *(torch.randn(3).softmax(0) for _ in range(3)),
            torch.rand(()) if layer.droppable else torch.ones(()),
        )
        for layer in wide_space.layers
    ]
    model = RuntimeModel(wide_space, counted_table("macs", wide_space, (32, 32)))
    smallest, largest = runtime_range(wide_space, model)
    target, tolerance = smallest + (0.3 + 0.2 * seed) * (largest - smallest), 0.05

    def value(choices: tuple[Choice, ...]) -> float:
        total = 0.0
        for layer, decision, choice in zip(wide_space.layers, decisions, choices, strict=True):
            skip = float(1 - decision.keep)
            if choice is None:
                total += math.log(skip) if selection == "likelihood" else 0.0
                continue
            groups = (decision.kernel, decision.expansion, decision.se)
            for weights, index in zip(groups, vars(choice).values(), strict=True):
                against = float(weights[0]) if selection == "log_odds" else 1.0
                total += math.log(float(weights[index]) / against)
            if layer.droppable:
                total += math.log(1 - skip) - (math.log(skip) if selection == "log_odds" else 0.0)
        return total

    inside = [
        choices
        for choices in itertools.product(*map(wide_space.choices, wide_space.layers))
        if target * (1 - tolerance)
        <= predict_runtime(wide_space.architecture(choices, "any"), model.table)
        <= target * 0.9995
    ]
    assert len(inside) > 10
    found = select_at_target(wide_space, model, decisions, target, tolerance, selection)
    assert tuple(found) == max(inside, key=value)


@pytest.fixture(scope="module")
def tiny(small: tuple[SearchSpace, RuntimeModel]) -> tuple[SearchSpace, RuntimeModel]:
    """One layer a stage, none of which can be skipped: 4^5 networks."""
    space, model = small
    rows = [row for row in model.table.layers if row.in_channels != row.out_channels]
    stages = tuple(dataclasses.replace(stage, num_layers=1) for stage in space.stages)
    tiny = dataclasses.replace(space, stages=stages)
    return tiny, RuntimeModel(tiny, dataclasses.replace(model.table, layers=tuple(rows)))


def networks_of(space: SearchSpace, model: RuntimeModel) -> list[tuple[float, list[Choice]]]:
    """Runtime and choices of every network."""
    networks = []
    for choices in itertools.product(*map(space.choices, space.layers)):
        rows = [model.choice_runtimes(index) for index in range(len(space.layers))]
        parts = [
            row[options.index(choice)]
            for row, options, choice in zip(
                rows, map(space.choices, space.layers), choices, strict=True
            )
        ]
        networks.append((float(model.constant) + sum(parts), list(choices)))
    return networks


@pytest.mark.parametrize("target", [40.0, 46.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_tolerance_takes_the_best_that_is_fast_enough(
    tiny: tuple[SearchSpace, RuntimeModel], target: float, seed: int
) -> None:
    """Also far below the target: of two seeds, everything at its smallest is the likeliest."""
    space, model = tiny
    decisions = random_decisions(space, random.Random(seed))
    if seed < 2:
        small = torch.tensor([0.8, 0.2])
        decisions = [dataclasses.replace(d, kernel=small, expansion=small) for d in decisions]
    values = {
        tuple(choices): sum(
            likelihood(decision, choice, droppable=False)
            for decision, choice in zip(decisions, choices, strict=True)
        )
        for runtime, choices in networks_of(space, model)
        if runtime <= target * 0.9995
    }
    assert len(values) > 20
    best = max(values, key=values.__getitem__)
    searchable = 1 - float(model.constant) / target
    for tolerance in (1.1 * searchable, 1.0):  # both reach below the constant part
        assert tuple(select_at_target(space, model, decisions, target, tolerance)) == best


def test_a_band_without_networks_ends_at_the_closest_below(
    tiny: tuple[SearchSpace, RuntimeModel],
) -> None:
    """However little the supernet thinks of it."""
    space, model = tiny
    decisions = random_decisions(space, random.Random(6))
    networks = sorted(networks_of(space, model), key=lambda network: network[0])
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(networks)]
    place = gaps.index(max(gaps[20:-20]))
    (below, expected), (above, _) = networks[place : place + 2]
    target = (below + 2 * above) / 3
    found = select_at_target(
        space, model, decisions, target, tolerance=(above - below) / 9 / target
    )
    assert found == expected


def test_log_odds_shrink_layers_before_they_drop_them(
    space: SearchSpace, table: LatencyTable
) -> None:
    """Where a supernet is equally sure of everything, nothing is skipped at half the runtime."""
    model, even = RuntimeModel(space, table), torch.tensor(0.88)
    decision = Decision(
        torch.stack([1 - even, even]),
        torch.stack([1 - even, even]),
        nested_weights(torch.stack([even, even])),
        even,
    )
    arguments = (space, model, [decision] * 20, 80.0, 0.01)
    skipped = [
        select_at_target(*arguments, name).count(None) for name in ("log_odds", "likelihood")
    ]
    assert skipped[0] == 0
    assert skipped[1] > 3


def test_unknown_selection(space: SearchSpace, table: LatencyTable, rng: random.Random) -> None:
    decisions = random_decisions(space, rng)
    with pytest.raises(
        UserError, match="unknown SEARCH.SELECTION 'luck'; expected one of log_odds"
    ):
        select_at_target(space, RuntimeModel(space, table), decisions, 80.0, selection="luck")


@pytest.mark.parametrize("seed", range(10))
def test_full_space_ends_at_the_target(space: SearchSpace, table: LatencyTable, seed: int) -> None:
    model = RuntimeModel(space, table)
    rng = random.Random(seed)
    decisions = random_decisions(space, rng)
    for fraction in (0.02, 0.35, 0.55, 0.75, 0.98):
        smallest, largest = runtime_range(space, model)
        target = smallest + fraction * (largest - smallest)
        choices = select_at_target(space, model, decisions, target)
        runtime = predict_runtime(space.architecture(choices, "selected"), table)
        assert target * 0.985 <= runtime <= target + 1e-6


def test_runtime_range_is_that_of_the_extremes(space: SearchSpace, table: LatencyTable) -> None:
    smallest, largest = runtime_range(space, RuntimeModel(space, table))
    assert smallest == pytest.approx(predict_runtime(space.smallest(), table), abs=1e-3)
    assert largest == pytest.approx(predict_runtime(space.largest(), table), abs=1e-3)


@pytest.mark.parametrize("target", [10.0, 500.0])
def test_target_outside_the_space(
    space: SearchSpace, table: LatencyTable, rng: random.Random, target: float
) -> None:
    with pytest.raises(UserError, match=r"take 30\.63 to 131\.5 ms by latency table 'pixel1'"):
        select_at_target(space, RuntimeModel(space, table), random_decisions(space, rng), target)


def test_fixed_tradeoff_is_the_papers() -> None:
    tradeoff = FixedTradeOff(0.3)
    assert [tradeoff.update(torch.tensor(runtime), 0.5) for runtime in (1.0, 100.0)] == [0.3, 0.3]


def answer(tradeoff: TargetTradeOff, runtime: float, progress: float) -> float:
    """λ on the host."""
    return float(tradeoff.update(torch.tensor(runtime, dtype=torch.float64), progress))


def test_budget_falls_geometrically_from_first_runtime_to_target() -> None:
    tradeoff = TargetTradeOff(80, start=0.2, end=0.6)
    answer(tradeoff, 125, 0.0)
    assert float(tradeoff.budget(0.1)) == 125
    assert float(tradeoff.budget(0.4)) == pytest.approx(math.sqrt(125 * 80))
    assert float(tradeoff.budget(0.9)) == pytest.approx(80)


def test_controller_by_hand() -> None:
    """λ = 10·e + 0.1·Σe of the log-ratio to the budget; neither it nor the sum is below 0."""
    tradeoff = TargetTradeOff(80, start=0.0, end=1.0, proportional=10.0, integral=0.1)
    assert answer(tradeoff, 120, 0.0) == 0  # where the budget starts
    budget = math.sqrt(120 * 80)  # halfway
    first = math.log(120 / budget)
    assert answer(tradeoff, 120, 0.5) == pytest.approx(10.1 * first)
    second = math.log(1.01 * 120 / budget)
    expected = 10 * second + 0.1 * (first + second)
    for _ in range(2):  # the forward passes of one step
        assert answer(tradeoff, 1.01 * 120, 0.5 + 1e-12) == pytest.approx(expected)
    assert answer(tradeoff, budget / 100, 0.5 + 2e-12) == 0
    assert float(tradeoff.summed_error) == 0
    assert answer(tradeoff, 120, 0.5 + 3e-12) == pytest.approx(10.1 * first)


def test_a_supernet_below_its_target_has_it_as_its_budget() -> None:
    tradeoff = TargetTradeOff(80)
    assert answer(tradeoff, 60, 0.0) == 0
    assert [float(tradeoff.budget(at)) for at in (0.0, 0.4, 1.0)] == [80, 80, 80]


def test_controller_leads_a_lagging_plant_to_the_target() -> None:
    """A runtime that answers to λ with inertia ends near the target without diving below it."""
    tradeoff, log_runtime, speed, lowest = TargetTradeOff(80), math.log(130), 0.0, math.inf
    for step in range(400):
        weight = answer(tradeoff, math.exp(log_runtime), step / 400)
        speed += 0.1 * ((0.3 - weight) * 0.01 - speed)
        log_runtime = min(log_runtime + speed, math.log(130))
        lowest = min(lowest, math.exp(log_runtime))
    assert math.exp(log_runtime) == pytest.approx(80, rel=0.05)
    assert lowest > 70


def test_controller_state_survives() -> None:
    first, second = TargetTradeOff(80), TargetTradeOff(80)
    for step in range(20):
        answer(first, 130 - step, step / 40)
    second.load_state_dict(first.state_dict())
    assert answer(second, 105, 0.5) == answer(first, 105, 0.5)
