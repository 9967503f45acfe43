"""Time is divided as the recipe has it, and a budget that is too small is answered with one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from backbones import UserError
from search.auto.probe import Costs
from search.auto.quantities import parse_duration
from search.auto.schedule import EFFORTS, FEWEST, MOST, RECIPE, Schedule, Work, schedule

COSTS = Costs(
    side=320,
    startup=20.0,
    step=1.0,
    adapting=1.5,
    loss=0.08,
    statistics=0.03,
    evaluation=0.1,
    convert_network=4.0,
    convert_layer=0.5,
    visit_network=0.2,
    visit_layer=0.03,
    seed_runtime=22.0,
)
WORK = Work(
    train_images=400,
    test_images=100,
    batch=4,
    evaluated=100,
    layer_items=48,
    measured=63,
    targets=1,
    exports=1,
    profiles=True,
    measures=True,
)


def training_seconds(found: Schedule, work: Work = WORK) -> float:
    """Of all steps, by hand."""
    steps = {name: epochs * work.train_images / work.batch for name, epochs in found.epochs.items()}
    tuned = work.targets * steps["tune"]
    return 1.5 * steps["adapt"] + 1.0 * (steps["start"] + tuned + steps["baseline"])


def test_without_a_budget_the_recipe_is_taken() -> None:
    found = schedule(WORK, COSTS, 12.0, None)
    assert {name: found.epochs[name] for name in RECIPE} == RECIPE
    assert found.effort == EFFORTS[0]
    # as many steps in all as the network found has had
    assert found.epochs["baseline"] == sum(RECIPE.values())


def test_all_stages_add_up() -> None:
    """Beside the steps, the total is what has to be done in any case: the same for any epochs."""
    long, short = (schedule(WORK, COSTS, epochs, None) for epochs in (12.0, 6.0))
    rest = long.total - training_seconds(long)
    assert rest == pytest.approx(short.total - training_seconds(short))
    measured = WORK.measured * (100 * 0.08 + 8 * 4 * 0.03)
    assert long.seconds["search"] > measured
    assert long.seconds["profile"] > 16 * (48 * 0.03 + 32 * 0.2)
    several = replace(WORK, targets=3, exports=2)
    found = schedule(several, COSTS, 12.0, None)
    added = 2 * found.seconds["tune"] + 5 * found.seconds["export"]
    assert found.total == pytest.approx(long.total + added, abs=120)


@pytest.mark.parametrize("minutes", [60, 90, 150])
def test_a_budget_is_used_and_not_passed(minutes: int) -> None:
    found = schedule(WORK, COSTS, 12.0, 60.0 * minutes)
    assert 0.9 * 60 * minutes < found.total <= 60 * minutes
    for name in RECIPE:
        steps = found.epochs[name] * WORK.train_images / WORK.batch
        assert steps >= FEWEST[name] * 0.99
    assert found.epochs["start"] / found.epochs["tune"] == pytest.approx(1.0, rel=0.01)


def test_a_long_budget_is_not_used_up() -> None:
    found = schedule(WORK, COSTS, 12.0, 1e6)
    assert found.epochs["start"] == pytest.approx(MOST * 12.0, rel=0.01)


def test_a_small_budget_says_what_would_fit() -> None:
    """What it names does fit, and a minute less does not."""
    with pytest.raises(UserError, match="^a budget of 1m does not hold this plan") as caught:
        schedule(WORK, COSTS, 12.0, 60.0)
    text = str(caught.value)
    assert "fewer --targets, a smaller --size or a --table" in text
    (needed,) = re.findall(r"give --budget (\S+),", text)
    seconds = parse_duration(needed)
    assert schedule(WORK, COSTS, 12.0, seconds).total <= seconds
    with pytest.raises(UserError, match="does not hold this plan"):
        schedule(WORK, COSTS, 12.0, seconds - 90)


def test_what_would_fit_is_less_with_a_table_and_a_smaller_size() -> None:
    def needed(work: Work, costs: Costs) -> float:
        with pytest.raises(UserError) as caught:
            schedule(work, costs, 12.0, 1.0)
        return parse_duration(re.findall(r"at least (\S+) ", str(caught.value))[0])

    whole = needed(WORK, COSTS)
    assert needed(replace(WORK, profiles=False), COSTS) < whole
    assert needed(WORK, COSTS.at(192)) < whole
    assert needed(replace(WORK, targets=3), COSTS) > whole


def test_few_images_need_few_steps() -> None:
    """A recipe of fewer steps than the least that is worth it is taken whole."""
    tiny = replace(WORK, train_images=8, test_images=4, evaluated=4)
    found = schedule(tiny, COSTS, 12.0, 3600.0)
    assert found.epochs["start"] >= 12.0


def test_costs_grow_with_the_area_of_the_images() -> None:
    half = COSTS.at(160)
    assert half.step == pytest.approx(COSTS.step / 4)
    assert half.startup == COSTS.startup
    assert half.at(320) == COSTS


def test_keys_of_the_command_line_say_how_thoroughly_is_measured() -> None:
    effort = EFFORTS[0].with_keys({"SEARCH.SENSITIVITY.IMAGES": "12", "SEED": "1"})
    assert (effort.images, effort.batches) == (12, EFFORTS[0].batches)
