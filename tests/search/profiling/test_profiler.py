"""Profiling on an engine with known runtimes: table, correction, interruption."""

from __future__ import annotations

import dataclasses
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torch import Tensor, nn

from backbones import LatencyTable, UserError, predict_runtime
from backbones.files import read_json
from backbones.inference import ENGINES, Place, Session, make_engine
from backbones.inference.board import turns
from backbones.inference.measurement import Measurement
from detection.deployment import Deployment
from search.profiling import announcement, measuring
from search.profiling.announcement import about
from search.profiling.journal import Journal, Visit
from search.profiling.measuring import Noise, report_noise
from search.profiling.pace import (
    EVERY,
)
from search.profiling.profiler import profile_space
from search.profiling.workload import layer_items, network_item
from search.selection.runtime import RuntimeModel
from search.space import SearchSpace
from search.supernets.decisions import hard_decision
from tests.search.profiling.conftest import (
    DEPLOYMENT,
    KnownEngine,
    KnownProgram,
    profile,
)


def test_the_table_predicts_whole_networks(
    small_space: SearchSpace, engine: KnownEngine, output: Path, rng: random.Random
) -> None:
    profile(small_space, engine, output)
    table = LatencyTable.load(output)
    assert (table.name, table.engine, table.input_size) == ("known", "known", (64, 64))
    assert table.threads == 1
    assert (table.noise, table.warning) == (0, "rough, as it was measured in 2 rounds")
    assert table.correction_refused == ""
    assert table.versions == {"known": "1.0"}
    assert len(table.layers) == 8
    assert all(set(row.spreads) == set(row.runtimes) for row in table.layers)
    fit = table.correction
    assert fit is not None
    assert (fit.intercept, fit.scale) == pytest.approx((0.4, 1.1), abs=1e-2)
    assert (fit.per_layer, fit.per_se) == pytest.approx((-0.005, 0.003), abs=1e-4)
    assert fit.error < 0.01
    model = RuntimeModel(small_space, table)
    for _ in range(10):
        choices = small_space.sample(rng)
        architecture = small_space.architecture(choices, "random")
        expected = network_item(architecture, DEPLOYMENT)
        measured = engine.compile(expected.build, expected.inputs()).runtime
        assert predict_runtime(architecture, table) == pytest.approx(measured, rel=1e-3)
        decisions = [hard_decision(small_space, choice) for choice in choices]
        assert float(model(decisions)) == pytest.approx(measured, rel=1e-3)
    assert not output.with_suffix(".partial").exists()


def test_detection_tables_have_a_pyramid_and_no_head(
    small_space: SearchSpace, engine: KnownEngine, output: Path
) -> None:
    deployment = Deployment("detection", (60, 90), fpn_channels=16)
    table = profile_space(small_space, engine, deployment, output, 1, correction_networks=0)
    assert table.task == "detection"
    assert table.constant.head is None
    assert table.constant.fpn_channels == 16
    assert table.input_size == (64, 96)
    assert table.correction is None
    assert Deployment.of(table).padded_size == deployment.padded_size


def test_an_interrupted_profile_goes_on(
    small_space: SearchSpace, engine: KnownEngine, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the 100th visit with a line half written, it makes only the others."""
    real, visits = turns.visit, []

    def killed(session: Session) -> float:
        visits.append(session)
        if len(visits) == 100:
            raise KeyboardInterrupt
        return real(session)

    monkeypatch.setattr(turns, "visit", killed)
    with pytest.raises(KeyboardInterrupt):
        profile(small_space, engine, output)
    file = output.with_suffix(".partial") / "visits.jsonl"
    assert len(file.read_text().splitlines()) == 99
    with file.open("a") as handle:
        handle.write('["layer_8_16_s2_')
    total = 2 * (2 + 8 * 8 + 12)  # rounds × (constant parts, candidates, networks)
    total += total // EVERY  # of the reference
    resumed = profile(small_space, engine, output)
    assert len(visits) == 100 + total - 99
    monkeypatch.setattr(turns, "visit", real)
    other = output.with_name("again.json")
    again = dataclasses.replace(
        profile(small_space, engine, other), name=resumed.name, source=resumed.source
    )
    assert again == resumed


def test_a_journal_is_data(tmp_path: Path) -> None:
    """Lines that are no visits count as half written, and no key leads out of its folder."""
    journal = Journal(tmp_path / "p.partial", {})
    journal.add(Visit("layer", 0, 1.5))
    with (tmp_path / "p.partial/visits.jsonl").open("a") as file:
        file.write("3\n[1]\n" + "[" * 100_000 + "\n")
    assert Journal(tmp_path / "p.partial", {}).visits == [Visit("layer", 0, 1.5)]
    with pytest.raises(UserError, match="what is measured is called '../x', which cannot name a"):
        journal.model_path("../x")


def test_a_journal_killed_while_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Visits never outlive the setting that they were made in: another one finds none of them."""
    folder = tmp_path / "p.partial"
    journal = Journal(folder, {"threads": 1})
    journal.add(Visit("layer", 0, 1.5))
    journal.model_path("layer").touch()
    kept: list[list[str]] = []
    monkeypatch.setattr(
        shutil, "rmtree", lambda path: kept.append([file.name for file in path.iterdir()])
    )
    journal.remove()
    assert kept == [["setting.json"]]
    assert Journal(folder, {"threads": 2}).visits == []
    assert read_json(folder / "setting.json", "profile") == {"threads": 2}


@pytest.mark.slow
def test_models_are_converted_on_all_cores(
    small_space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes make the model files that the measuring process then loads."""
    monkeypatch.setattr(Journal, "remove_models", lambda _: None)
    journal = Journal(tmp_path, {})
    items = layer_items(small_space, DEPLOYMENT)[: 2 * announcement.CONVERSIONS_PER_WORKER]
    reference = network_item(small_space.smallest(), DEPLOYMENT)
    engine = make_engine("onnxruntime")
    found = measuring.measure(items, reference, engine, journal, rounds=1)
    assert all(journal.model_path(item.key).is_file() for item in items)
    assert all(found[item.key].runtime > 0 for item in items)


def test_another_setting_does_not_mix_in(
    small_space: SearchSpace, engine: KnownEngine, output: Path
) -> None:
    journal = Journal(output.with_suffix(".partial"), {"rounds": 9, "threads": 1})
    journal.add(Visit("layer", 0, 1.5))
    with pytest.raises(UserError, match=r"unfinished profile with another .*rounds.*--output"):
        profile(small_space, engine, output)


class ConvertingEngine(KnownEngine):
    """Keeps a file of 1 MB for every module; fails at the modules of a name."""

    converts = True
    refused = "none"

    def compile(
        self,
        build: Callable[[], nn.Module],
        inputs: Sequence[Tensor],
        path: Path | None = None,
        place: Place = "whole",
    ) -> KnownProgram:
        assert path is not None
        if self.refused in path.name:
            raise UserError(f"cannot convert {path.name}")
        path.write_bytes(bytes(1_000_000))
        return super().compile(build, inputs)


@pytest.fixture
def converting(monkeypatch: pytest.MonkeyPatch) -> ConvertingEngine:
    monkeypatch.setitem(ENGINES, "known", ConvertingEngine)
    monkeypatch.setattr(measuring, "workers_for", lambda _: 1)
    return ConvertingEngine()


def test_a_profile_says_what_it_will_take(
    small_space: SearchSpace,
    converting: ConvertingEngine,
    output: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """2 + 8 × 8 parts, 12 networks and the reference: 79 models, of which 9 are tried first."""
    caplog.set_level("INFO")
    profile(small_space, converting, output)
    conversions = r"70 modules to convert \(about \d+ s, 79 MB on disk until all is measured\)"
    assert re.search(rf"{conversions} and 195 visits \(about \d+ s\)", caplog.text)
    assert list(output.parent.iterdir()) == [output]


def test_nothing_is_left_of_a_refused_profile(
    small_space: SearchSpace,
    converting: ConvertingEngine,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ConvertingEngine, "refused", "tail")
    with pytest.raises(UserError, match="cannot convert tail"):
        profile(small_space, converting, output)
    assert list(output.parent.iterdir()) == []


def test_models_are_gone_once_all_is_measured(
    small_space: SearchSpace,
    converting: ConvertingEngine,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the table cannot be written, what was measured is kept, in some kilobytes."""

    def fails(*_: object) -> None:
        raise UserError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(LatencyTable, "save", fails)
        with pytest.raises(UserError, match="disk is full"):
            profile(small_space, converting, output)
    kept = sorted(path.name for path in output.with_suffix(".partial").iterdir())
    assert kept == ["setting.json", "visits.jsonl"]
    profile(small_space, converting, output)
    assert list(output.parent.iterdir()) == [output]


def test_durations_in_words() -> None:
    assert [about(s) for s in (0.1, 42.4, 89, 240, 3700)] == [
        *("about 1 s", "about 42 s", "about 89 s", "about 4 min", "about 62 min")
    ]


def test_a_table_knows_its_activation(
    wide_space: SearchSpace, engine: KnownEngine, output: Path
) -> None:
    swish = dataclasses.replace(wide_space, activation="hard_swish")
    profile_space(swish, engine, DEPLOYMENT, output, rounds=1, correction_networks=4)
    table = LatencyTable.load(output)
    assert table.activation == "hard_swish"
    RuntimeModel(swish, table)
    with pytest.raises(UserError, match="with activation relu, where the table's layers have hard"):
        RuntimeModel(wide_space, table)


def test_noise_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    quiet = {str(i): Measurement(1.0, 0.01) for i in range(20)}
    assert report_noise(quiet, 16) == Noise(0.01, "")
    assert not caplog.text
    noisy = {**quiet, **{str(i): Measurement(1.0, 0.2) for i in range(3)}}
    warning = "too noisy to trust, as 3 of 20 figures repeat worse than ±5 %"
    assert report_noise(noisy, 16) == Noise(0.01, warning)
    assert warning in caplog.text
    assert report_noise(noisy, 2) == Noise(
        0.01, f"rough, as it was measured in 2 rounds; {warning}"
    )
    once = {str(i): Measurement(1.0, 0.0) for i in range(20)}
    assert report_noise(once, 1) == Noise(None, "rough, as it was measured in 1 round")
    shared = {str(i): Measurement(1.0, 0.01, 0.6 if i % 3 else 1.0) for i in range(20)}
    found = report_noise(shared, 16)
    assert found.warning == "longer than on a quiet machine, as other work had 40 % of the core"
    assert found.warning in caplog.text
