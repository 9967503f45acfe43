"""What choices are worth by a decision, against products and ratios of its weights."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from search.space import Choice, SearchLayer, SearchSpace
from search.supernets.decisions import Decision, PathWeights, hard_decision

DROPPABLE, FIXED = SearchLayer(8, 8, 1), SearchLayer(8, 12, 2)
KERNEL, EXPANSION, SE, KEEP = (0.03, 0.97), (0.4, 0.6), (0.2, 0.7, 0.1), 0.95


def decision(keep: float) -> Decision:
    return Decision(*map(torch.tensor, (KERNEL, EXPANSION, SE, keep)))


def choices_of(space: SearchSpace, layer: SearchLayer) -> list[Choice]:
    choices = list(space.choices(layer))
    assert len(choices) == (13 if layer.droppable else 12)
    return choices


@pytest.mark.parametrize("layer", [DROPPABLE, FIXED], ids=["droppable", "fixed"])
def test_weight_of_a_choice_is_the_product_of_its_options(
    space: SearchSpace, layer: SearchLayer
) -> None:
    keep = KEEP if layer.droppable else 1.0
    expected = [
        1 - keep if c is None else keep * KERNEL[c.kernel] * EXPANSION[c.expansion] * SE[c.se]
        for c in choices_of(space, layer)
    ]
    assert sum(expected) == pytest.approx(1)
    found = decision(keep).log_weights(space, layer).exp()
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("layer", [DROPPABLE, FIXED], ids=["droppable", "fixed"])
def test_odds_of_a_choice_are_against_the_smallest_options_and_the_skip_op(
    space: SearchSpace, layer: SearchLayer
) -> None:
    keep = KEEP if layer.droppable else 1.0
    expected = [
        0.0
        if c is None
        else math.log(keep / (1 - keep) if layer.droppable else 1.0)
        + math.log(KERNEL[c.kernel] / KERNEL[0])
        + math.log(EXPANSION[c.expansion] / EXPANSION[0])
        + math.log(SE[c.se] / SE[0])
        for c in choices_of(space, layer)
    ]
    found = decision(keep).log_odds(space, layer)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_path_weights_are_those_of_the_choices(space: SearchSpace) -> None:
    weights = torch.rand(13, generator=torch.Generator().manual_seed(0)).softmax(0)
    expected = torch.tensor([math.log(weight) for weight in weights.tolist()])
    for found in (
        PathWeights(weights).log_weights(space, DROPPABLE),
        PathWeights(weights).log_odds(space, DROPPABLE),
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("layer", [DROPPABLE, FIXED], ids=["droppable", "fixed"])
def test_what_is_certain_stays_a_number(space: SearchSpace, layer: SearchLayer) -> None:
    """With weights of 0, their logarithms are finite, and the choice made is still the best."""
    for number, choice in enumerate(choices_of(space, layer)):
        certain = hard_decision(space, choice)
        assert certain.choice() == choice
        for values in (certain.log_weights(space, layer), certain.log_odds(space, layer)):
            assert values.isfinite().all()
            assert int(values.argmax()) == number
    one_hot = PathWeights(torch.eye(13)[4]).log_weights(space, DROPPABLE)
    assert one_hot.isfinite().all()
    assert int(one_hot.argmax()) == 4


def test_every_choice_of_a_decision_is_its_most_weighted_one(space: SearchSpace) -> None:
    for kernel, expansion, se in itertools.product(range(2), range(2), range(3)):
        weights = [
            torch.eye(size)[index] * 0.4 + 0.6 / size
            for index, size in ((kernel, 2), (expansion, 2), (se, 3))
        ]
        choice = Decision(*weights, torch.tensor(0.51)).choice()
        assert choice is not None
        assert (choice.kernel, choice.expansion, choice.se) == (kernel, expansion, se)
        assert Decision(*weights, torch.tensor(0.49)).choice() is None
