"""The pace of a machine, which what is measured is told apart from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from backbones.inference.measurement import Measurement
from search.profiling.journal import Visit
from search.profiling.pace import (
    ANCHORS,
    anchor_items,
    at_one_pace,
    drift,
    rolling_median,
)
from search.space import SearchSpace
from tests.search.profiling.conftest import (
    DEPLOYMENT,
    KnownEngine,
    make_uneven,
    profile,
)


def test_a_machine_that_changes_its_pace_measures_the_same(
    small_space: SearchSpace, engine: KnownEngine, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady = profile(small_space, engine, output)
    make_uneven(monkeypatch)
    table = profile(small_space, engine, output.with_name("uneven.json"), rounds=5)
    factor = 1.5  # of the median
    assert table.constant.runtime == pytest.approx(factor * steady.constant.runtime)
    for row, known in zip(table.layers, steady.layers, strict=True):
        for name, runtime in row.runtimes.items():
            assert runtime == pytest.approx(factor * known.runtimes[name], abs=2e-5)


def test_rolling_median_by_hand() -> None:
    values = [1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert rolling_median(values) == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert rolling_median([3.0]) == [3]


def test_the_pace_between_two_visits_to_the_reference() -> None:
    """8 ms, 10 visits later 12 ms: what took 5 ms halfway is given at the median, 10 ms."""
    visits = [Visit("pace", 0, 8.0), *(Visit("x", i, 5.0) for i in range(9)), Visit("pace", 1, 12)]
    found = at_one_pace(visits, "pace")
    assert list(found) == ["x"]
    assert found["x"].runtime == pytest.approx(5)


def test_one_odd_visit_to_the_reference_moves_nothing() -> None:
    """The pace is a median of the neighbours; a disturbance of one visit is its own."""
    visits = []
    for index in range(20):
        visits.append(Visit("pace", index, 30.0 if index == 10 else 10.0))
        visits.append(Visit(f"x{index}", 0, 5.0))
    found = at_one_pace(visits, "pace")
    assert found == {f"x{index}": Measurement(5.0, 0.0) for index in range(20)}


def test_the_drift_is_the_geometric_mean_over_the_anchors(
    small_space: SearchSpace, engine: KnownEngine, output: Path
) -> None:
    table = profile(small_space, engine, output)
    assert table.correction is not None
    anchors = anchor_items(small_space, table, DEPLOYMENT)
    assert list(anchors) == list(table.correction.networks)[:ANCHORS]
    factors = [2.0, 0.5, 1.5] + [1.0] * (ANCHORS - 3)
    found = {
        item.key: Measurement(factor * table.correction.networks[types], 0.0)
        for factor, (types, item) in zip(factors, anchors.items(), strict=True)
    }
    assert drift(table, anchors, found) == pytest.approx(1.5 ** (1 / ANCHORS))
    assert drift(table, {}, {}) == 1
    plain = dataclasses.replace(table, correction=None)
    assert anchor_items(small_space, plain, DEPLOYMENT) == {}
    assert drift(plain, anchors, found) == 1
