"""Tables judged by whole networks, on an engine with known runtimes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from backbones import UserError
from backbones.inference.board import turns
from search.profiling.evaluation import evaluate_table
from search.profiling.networks import measure_architectures, networks_table
from search.profiling.profiler import profile_space
from search.profiling.report import latency_section
from search.profiling.scores import scores, se_factors
from search.space import SearchSpace
from tests.search.profiling.conftest import (
    DEPLOYMENT,
    KnownEngine,
    make_uneven,
    profile,
)


def test_evaluation_leaves_the_fitted_networks_out(
    small_space: SearchSpace, engine: KnownEngine, output: Path
) -> None:
    table = profile(small_space, engine, output)
    path = output.with_name("report.json")
    evaluate_table(table, small_space, path, networks=10, rounds=1)
    report = json.loads(path.read_text())
    assert table.correction is not None
    assert not {row["layers"] for row in report["networks"]} & set(table.correction.networks)
    assert report["scores"]["all"]["mean_error"] < 0.1
    assert report["scores"]["all"]["spearman"] > 0.99
    assert report["scores"]["plain sum"]["mean_error"] > 10
    assert report["scores"]["with SE"]["networks"] == 5
    assert set(report["se_factors"]) == {"0.25"}
    assert report["table_warning"] == "rough, as it was measured in 2 rounds"
    assert report["warning"] == "rough, as it was measured in 1 round"
    assert "table 'known' is rough, as it was measured in 2 rounds." in latency_section(report)
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_a_profile_that_judges_itself(
    small_space: SearchSpace, engine: KnownEngine, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks that are measured in the same turns meet the same changes of pace."""
    make_uneven(monkeypatch)
    path = output.with_name("report.json")
    table = profile_space(
        small_space,
        engine,
        DEPLOYMENT,
        output,
        rounds=5,
        correction_networks=12,
        evaluation=path,
        evaluation_networks=10,
    )
    report = json.loads(path.read_text())
    assert table.correction is not None
    assert not {row["layers"] for row in report["networks"]} & set(table.correction.networks)
    assert table.source.endswith("with the 10 networks that it is judged on")
    assert (report["table"], report["drift"], report["rounds"]) == ("known", 1, 5)
    assert report["scores"]["as measured"] == report["scores"]["all"]
    assert report["scores"]["all"]["networks"] == 10
    assert report["scores"]["all"]["mean_error"] < 0.1
    assert report["scores"]["plain sum"]["mean_error"] > 10
    assert path.with_suffix(".png").exists()
    assert not output.with_suffix(".partial").exists()


def test_a_slower_machine_is_told_from_a_wrong_table(
    small_space: SearchSpace, engine: KnownEngine, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = profile(small_space, engine, output)
    real = turns.visit
    monkeypatch.setattr(turns, "visit", lambda session: 1.1 * real(session))
    path = output.with_name("report.json")
    report = evaluate_table(table, small_space, path, networks=6, rounds=1)
    assert report["drift"] == pytest.approx(1.1, rel=1e-3)
    assert report["scores"]["all"]["mean_error"] < 0.1
    assert report["scores"]["as measured"]["mean_error"] == pytest.approx(100 / 11, rel=0.02)


def test_a_table_that_tells_no_networks_apart_is_reported(
    small_space: SearchSpace, engine: KnownEngine, output: Path
) -> None:
    """As a profile of one round on a busy machine can be: every candidate at 0."""
    table = profile(small_space, engine, output)
    rows = [
        dataclasses.replace(row, runtimes=dict.fromkeys(row.runtimes, 0.0)) for row in table.layers
    ]
    nothing = dataclasses.replace(table, correction=None, layers=tuple(rows))
    path = output.with_name("report.json")
    evaluate_table(nothing, small_space, path, networks=6, rounds=1)
    assert json.loads(path.read_text())["scores"]["all"]["spearman"] is None
    assert path.with_suffix(".png").exists()


def test_tables_of_elsewhere_are_refused(
    small_space: SearchSpace, engine: KnownEngine, output: Path, space: SearchSpace
) -> None:
    table = profile(small_space, engine, output)
    arguments = (small_space, output.with_name("report.json"))
    with pytest.raises(UserError, match="was measured on 'Pixel 9'; this machine is"):
        evaluate_table(dataclasses.replace(table, device="Pixel 9"), *arguments)
    with pytest.raises(UserError, match="measured with TFLite"):
        evaluate_table(dataclasses.replace(table, engine="TFLite"), *arguments)
    with pytest.raises(UserError, match="does not cover search space 'imagenet'"):
        evaluate_table(table, space, output.with_name("report.json"))


def test_more_networks_than_the_space_has(engine: KnownEngine, output: Path) -> None:
    space = SearchSpace.load("digits_small")
    with pytest.raises(UserError, match="'digits_small' has fewer than 100 networks besides 12"):
        profile_space(space, engine, DEPLOYMENT, output, 1, 12, output.with_name("report.json"))
    assert list(output.parent.iterdir()) == []


def test_scores_by_hand() -> None:
    rows = [
        {"measured": 10.0, "predicted": 11.0},
        {"measured": 20.0, "predicted": 19.0},
        {"measured": 40.0, "predicted": 42.0},
    ]
    found = scores(rows, "predicted")
    assert found["rmse"] == pytest.approx(2**0.5)
    assert found["mean_error"] == pytest.approx((10 + 5 + 5) / 3)
    assert found["bias"] == pytest.approx((10 - 5 + 5) / 3)
    assert found["largest_error"] == pytest.approx(10)
    assert found["spearman"] == pytest.approx(1)


def test_se_factors_by_hand(small_space: SearchSpace) -> None:
    entries = torch.tensor([[[[2.0, 3.0], [4.0, 4.0]], [[1.0, 1.5], [2.0, 4.0]]]])
    assert se_factors(entries.numpy(), small_space) == {"0.25": [[1.0, 1.5, 2.0]]}
    entries[0, 0, 0] = 0
    assert se_factors(entries.numpy(), small_space) == {"0.25": [[1.0, 1.375, 2.0]]}


def test_named_networks(small_space: SearchSpace, engine: KnownEngine, output: Path) -> None:
    table = profile(small_space, engine, output)
    smallest, largest = small_space.smallest(), small_space.largest()
    narrow = largest.scaled(0.5)
    rows = measure_architectures([smallest, largest, narrow], engine, DEPLOYMENT, 2, table)
    assert [row["architecture"] for row in rows] == [a.name for a in (smallest, largest, narrow)]
    assert all(abs(row["error"]) < 0.1 for row in rows[:2])
    assert rows[2]["predicted"] is None
    assert "not covered" in networks_table(rows)


def test_named_networks_at_the_pace_of_the_table(
    small_space: SearchSpace,
    space: SearchSpace,
    engine: KnownEngine,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = profile(small_space, engine, output)
    real, network = turns.visit, small_space.smallest()
    monkeypatch.setattr(turns, "visit", lambda session: 1.25 * real(session))
    setting = ([network], engine, DEPLOYMENT, 2)
    (row,) = measure_architectures(*setting, table, small_space)
    assert row["error"] == pytest.approx(-20, abs=0.1)
    assert row["error_then"] == pytest.approx(0, abs=0.1)
    (row,) = measure_architectures(*setting, dataclasses.replace(table, device="?"), small_space)
    assert "error_then" not in row
    with pytest.raises(UserError, match=r"space 'imagenet' has no network .*--config-file"):
        measure_architectures(*setting, table, space)
