"""Tables and evaluations of models that are converted here and timed elsewhere."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torch import Tensor, nn

from backbones import LatencyTable, UserError
from backbones.architecture import HeadSpec, LayerSpec, StemSpec
from backbones.inference import ENGINES, Place, make_engine
from backbones.inference.board import measure as script
from detection.deployment import Deployment
from search.profiling.elsewhere import (
    collect_evaluation,
    collect_table,
    prepare_evaluation,
    prepare_table,
)
from search.profiling.evaluation import evaluate_table
from search.profiling.profiler import profile_space
from search.space import SearchSpace, Stage
from tests.search.profiling.conftest import KnownEngine, KnownProgram, KnownSession

DEPLOYMENT = Deployment("classification", (64, 64))
NO_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None; sys.path[:] = [p for p in sys.path if p];"
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


class FileEngine(KnownEngine):
    """Known runtimes, which its model files hold."""

    name = "onnxruntime"
    converts = True

    def compile(
        self,
        build: Callable[[], nn.Module],
        inputs: Sequence[Tensor],
        path: Path | None = None,
        place: Place = "whole",
    ) -> KnownProgram:
        program = super().compile(build, inputs)
        if path:
            path.write_text(str(program.runtime))
        return program


@pytest.fixture
def file_engine(monkeypatch: pytest.MonkeyPatch) -> FileEngine:
    """Registered here; and what the script times there."""
    monkeypatch.setitem(ENGINES, "onnxruntime", FileEngine)
    monkeypatch.setattr("search.profiling.measuring.workers_for", lambda _: 1)
    monkeypatch.setattr(
        script, "load_model", lambda engine, path, *_: KnownSession(float(path.read_text()))
    )
    monkeypatch.setattr(script, "engine_versions", lambda _: {"onnxruntime": "0.9"})
    return FileEngine()


def test_a_table_of_elsewhere_is_the_one_of_here(
    small_space: SearchSpace, file_engine: FileEngine, tmp_path: Path
) -> None:
    folder, here, there = tmp_path / "board", tmp_path / "a" / "t.json", tmp_path / "b" / "t.json"
    prepare_table(folder, small_space, file_engine, DEPLOYMENT, "cpu", 1, 2, 12, 4)
    prepare_table(folder, small_space, file_engine, DEPLOYMENT, "cpu", 1, 2, 12, 4)  # goes on
    with pytest.raises(UserError, match=r"measurements.jsonl' is not there or is empty; run meas"):
        collect_table(folder, there)
    script.measure(folder)
    report = tmp_path / "report.json"
    found = collect_table(folder, there, report)
    expected = profile_space(
        small_space, file_engine, DEPLOYMENT, here, 2, 12, tmp_path / "expected.json", 4
    )
    assert found.versions == {"onnxruntime": "0.9", "known": "1.0"}
    assert found.source.startswith(
        "python tools/profile_latency.py --prepare and --collect, 2 rounds"
    )
    same = {"versions": expected.versions, "source": expected.source}
    assert dataclasses.replace(found, **same) == expected
    assert LatencyTable.load(there) == found
    reports = [json.loads(path.read_text()) for path in (report, tmp_path / "expected.json")]
    assert reports[0]["networks"] == reports[1]["networks"] and len(reports[0]["networks"]) == 4


def test_an_evaluation_of_elsewhere_is_the_one_of_here(
    small_space: SearchSpace,
    file_engine: FileEngine,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = profile_space(small_space, file_engine, DEPLOYMENT, tmp_path / "t.json", 2, 12)
    expected = evaluate_table(table, small_space, tmp_path / "here.json", 6, 2, 1)
    prepare_evaluation(tmp_path / "board", table, small_space, 6, 2, 1)
    script.measure(tmp_path / "board")
    found = collect_evaluation(tmp_path / "board", tmp_path / "there.json")
    for key in ("networks", "scores", "drift", "device", "warning"):
        assert found[key] == expected[key]
    assert not [r for r in caplog.records if "is judged by was" in r.getMessage()]
    other = dataclasses.replace(table, device="Pixel 9", threads=4)
    prepare_evaluation(tmp_path / "other", other, small_space, 6, 2, 1)
    script.measure(tmp_path / "other")
    found = collect_evaluation(tmp_path / "other", tmp_path / "other.json")
    assert f"measured with {table.device} (the table: Pixel 9)" in found["warning"]
    assert "What table 't' is judged by was measured with" in caplog.text
    with pytest.raises(UserError, match=r"this tool; collect it with: .*evaluate.latency"):
        collect_table(tmp_path / "other", tmp_path / "t.json")


def test_threads_above_the_cores_are_in_the_table(
    small_space: SearchSpace, file_engine: FileEngine, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(script, "available_cores", lambda: 2)
    prepare_table(tmp_path / "board", small_space, file_engine, DEPLOYMENT, "cpu", 8, 5, 0)
    script.measure(tmp_path / "board")
    table = collect_table(tmp_path / "board", tmp_path / "t.json")
    assert table.threads == 8
    assert table.warning == "measured with 8 threads on 2 cores, which wait for each other"
    monkeypatch.setattr("search.profiling.setting.available_cores", lambda: 1)
    engine = FileEngine(threads=2)
    here = profile_space(small_space, engine, DEPLOYMENT, tmp_path / "h.json", 5, 0)
    assert here.warning == "measured with 2 threads on 1 core, which wait for each other"


@pytest.mark.slow
def test_timed_by_the_script_where_there_is_no_torch(tmp_path: Path) -> None:
    space = SearchSpace(
        "tiny", StemSpec(8), (LayerSpec(8, op="ds"),), (Stage(16, 1, 2),),
        (LayerSpec(16, op="ds", stride=2), LayerSpec(16, op="ds", stride=2),
         LayerSpec(16, op="ds", stride=2)),
        HeadSpec(32), kernel_sizes=(3,), expansions=(3, 6), se_ratios=(0,),
    )  # fmt: skip
    folder = tmp_path / "board"
    deployment = Deployment("classification", (32, 32))
    prepare_table(folder, space, make_engine("onnxruntime"), deployment, rounds=2,
                  correction_networks=0)  # fmt: skip
    command = [sys.executable, "-c", NO_TORCH, str(folder / "measure.py")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    table = collect_table(folder, tmp_path / "t.json")
    assert set(table.versions) == {"onnxruntime", "onnx", "torch"}
    (row,) = table.layers
    assert len(row.runtimes) == 2 and all(0 < found < 100 for found in row.runtimes.values())


def test_what_cannot_be_prepared(
    small_space: SearchSpace, file_engine: FileEngine, tmp_path: Path
) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "photo.jpg").touch()
    setting = (small_space, file_engine, DEPLOYMENT)
    for arguments, message in (
        ((used, *setting), r"used' has other things in it; name an empty folder"),
        ((tmp_path / "t", small_space, make_engine("torch"), DEPLOYMENT), "--engine is torch, wh"),
        ((tmp_path / "t", *setting, "cuda"), "has no fp32 on cuda"),
        ((tmp_path / "t", *setting, "cpu", 0), "--threads is 0"),
    ):
        with pytest.raises(UserError, match=message):
            prepare_table(*arguments)  # type: ignore[arg-type]
    assert [path.name for path in used.iterdir()] == ["photo.jpg"]
    assert not (tmp_path / "t").exists()
    with pytest.raises(UserError, match=r"is no prepared folder.*it lacks plan.json"):
        collect_table(used, tmp_path / "t.json")


def test_measurements_that_do_not_fit(
    small_space: SearchSpace, file_engine: FileEngine, tmp_path: Path
) -> None:
    folder = tmp_path / "board"
    prepare_table(folder, small_space, file_engine, DEPLOYMENT, rounds=1, correction_networks=0)
    script.measure(folder)
    with pytest.raises(UserError, match="no networks for --evaluation; prepare it with --evalua"):
        collect_table(folder, tmp_path / "t.json", tmp_path / "report.json")
    file = folder / "measurements.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *lines[4:]]))
    with pytest.raises(UserError, match=r"lacks 3 of 83 visits; run measure.py again on"):
        collect_table(folder, tmp_path / "t.json")
    file.write_text('{"plan": "other", "device": {}, "versions": {}, "threads": 1, "cores": 1}\n')
    with pytest.raises(UserError, match="is of another plan than"):
        collect_table(folder, tmp_path / "t.json")
    file.write_text('{"plan": 3}\n')
    with pytest.raises(UserError, match="is of another plan than"):
        collect_table(folder, tmp_path / "t.json")
