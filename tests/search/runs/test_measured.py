"""The network found, measured beside its prediction where the table's engine is at hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from backbones import Architecture, LatencyTable
from backbones.files import write_json
from detection.deployment import Deployment
from search.profiling.profiler import profile_space
from search.runs import measured
from search.runs.classification import SearchTrainer
from search.runs.measured import measured_facts, table_facts
from search.space import SearchSpace
from search.studies.trials import recipe, trial_config
from tests.search.conftest import SHORT, make_cfg
from tests.search.profiling.conftest import KnownEngine, engine, small_space

__all__ = ["engine", "small_space"]

DEPLOYMENT = Deployment("classification", (64, 64))


@pytest.fixture
def known(small_space: SearchSpace, engine: KnownEngine, tmp_path: Path) -> LatencyTable:
    return profile_space(small_space, engine, DEPLOYMENT, tmp_path / "known.json", 5, 12)


def test_beside_its_prediction(
    small_space: SearchSpace, known: LatencyTable, caplog: pytest.LogCaptureFixture
) -> None:
    before = torch.get_rng_state()
    found = measured_facts(small_space.largest(), known)
    assert torch.equal(torch.get_rng_state(), before)
    assert found["measured_error"] == pytest.approx(0, abs=0.1)
    assert found["measured_with"].startswith("known, ")
    assert "WARNING" not in caplog.text


def test_far_from_its_prediction(
    small_space: SearchSpace,
    known: LatencyTable,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(KnownEngine, "whole", (0.4, 2.2, -0.005, 0.003))
    assert measured_facts(small_space.largest(), known)["measured_error"] < -30
    assert "the table is wrong, or the machine is busier or slower" in caplog.text


def test_elsewhere_nothing_is_measured_or_said(
    small_space: SearchSpace,
    space: SearchSpace,
    known: LatencyTable,
    table: LatencyTable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    caplog.clear()
    elsewhere = dataclasses.replace(known, device="Pixel 9")
    counted = dataclasses.replace(known, engine="counted")
    assert measured_facts(small_space.largest(), elsewhere) == {}
    assert measured_facts(small_space.largest(), counted) == {}
    assert measured_facts(space.largest(), table) == {}
    assert not caplog.text


def test_what_cannot_be_measured_costs_no_search(
    small_space: SearchSpace,
    known: LatencyTable,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(measured, "measured_runtime", fails)
    assert measured_facts(small_space.largest(), known) == {}
    assert "could not be measured: no memory left" in caplog.text


def test_a_search_on_a_rough_table_says_so_and_measures(
    small_space: SearchSpace,
    engine: KnownEngine,
    images: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = profile_space(small_space, engine, DEPLOYMENT, tmp_path / "rough.json", 2, 12)
    write_json(tmp_path / "space.json", small_space.to_dict())
    target = 0.9 * (table.corrected_constant + sum(max(r.runtimes.values()) for r in table.layers))
    options = ("SEARCH.SPACE", str(tmp_path / "space.json"), "SEARCH.TARGET", str(target))
    options += ("SEARCH.LATENCY_TABLE", str(tmp_path / "rough.json"), "SEARCH.DEPLOY_SIZE", "64,64")
    cfg = make_cfg("search/digits_small.yaml", images, tmp_path / "run", *options, *SHORT)
    SearchTrainer(cfg).train()
    results = json.loads((tmp_path / "run" / "results.json").read_text())["search"]
    warning = "rough, as it was measured in 2 rounds"
    assert results["table_warning"] == warning
    assert f"latency table 'rough' is {warning}; what is searched on it is no better" in caplog.text
    assert results["measured_error"] == pytest.approx(0, abs=0.5)
    found = Architecture.load(tmp_path / "run" / "architecture.json")
    assert measured_facts(found, table)["measured_runtime"] == results["measured_runtime"]
    assert table_facts(dataclasses.replace(table, warning="")) == {}


def test_studies_do_not_measure(images: Path, tmp_path: Path) -> None:
    cfg = make_cfg("search/digits_small.yaml", images, tmp_path)
    assert cfg.SEARCH.MEASURE
    trial = trial_config(cfg, 1, tmp_path / "trial")
    assert not trial.SEARCH.MEASURE
    assert recipe(trial, "SEARCH") == recipe(cfg, "SEARCH")
