"""What is logged of a search's decisions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from detectron2.utils.events import EventStorage

from search.runs.runtime_loss import log_decisions
from search.space import SearchSpace
from search.supernets.multi_path import MultiPathSupernet
from search.supernets.one_shot import OneShot
from search.supernets.single_path import Supernet


def logged(supernet: OneShot) -> dict[str, float]:
    with EventStorage() as storage:
        log_decisions(supernet, supernet.space)
        return {name: value for name, (value, _) in storage.latest().items()}


def test_every_option_by_its_own_name(wide_space: SearchSpace) -> None:
    """Of thresholds that are known: σ(z) is the weight of going on to the next option."""
    supernet = Supernet(wide_space, 5, importance="none", initial_logit=0.0)
    gates = torch.tensor([0.75, 0.5, 0.25, 0.5, 0.125, 0.5, 0.8])
    for thresholds in supernet.thresholds:
        values = -gates[: len(thresholds.values)].logit()
        thresholds.values.data.copy_(values)
    options = {
        **{"kernel_3": 0.25, "kernel_5": 0.375, "kernel_7": 0.375},
        **{"expansion_3": 0.75, "expansion_4": 0.125, "expansion_6": 0.125},
        **{"se_0": 0.875, "se_0.25": 0.0625, "se_0.5": 0.0625},
    }
    expected = {
        f"decisions/layer{index:02d}_{name}": value
        for index, keep in ((1, 1.0), (2, 0.8))
        for name, value in {**options, "keep": keep}.items()
    }
    assert logged(supernet) == pytest.approx(expected)


def test_every_path_by_its_type(wide_space: SearchSpace) -> None:
    space = dataclasses.replace(
        wide_space, kernel_sizes=(3, 7), expansions=(6,), se_ratios=(0, 0.5)
    )
    supernet = MultiPathSupernet(space, 5)
    values = logged(supernet)
    kept = ("3x3-6", "3x3-6-0.5", "7x7-6", "7x7-6-0.5")
    assert values == pytest.approx(
        {
            **{f"decisions/layer01_{name}": 1 / 4 for name in kept},
            **{f"decisions/layer02_{name}": 1 / 5 for name in (*kept, "skip")},
        }
    )
