"""Models converted here and timed elsewhere: by the script, over ssh, over adb."""

from __future__ import annotations

import dataclasses
import json
import os
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
from backbones.inference.board.turns import append_line, read_visits
from detection.deployment import Deployment
from search.profiling.elsewhere import (
    collect_evaluation,
    collect_table,
    prepare_evaluation,
    prepare_table,
)
from search.profiling.evaluation import evaluate_table
from search.profiling.prepared import write_script
from search.profiling.profiler import profile_space
from search.profiling.remote import benchmark_runtime, measure_over_adb, measure_over_ssh
from search.space import SearchSpace, Stage
from tests.backbones.inference.test_board import relu
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
    assert found.source.startswith("tools/profile_latency.py --prepare and --collect, 2 rounds")
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
    with pytest.raises(UserError, match=r"not prepared by this tool; .*tools/evaluate_latency.py"):
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


# A prepared folder without any conversion, for the script and what starts it.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models and a reference, of one operation each."""
    path = tmp_path / "prepared"
    path.mkdir()
    for key in ("a", "b", "pace"):
        relu(path / f"{key}.model")
    plan = {"engine": "onnxruntime", "device": "cpu", "threads": 1, "precision": "fp32",
            "rounds": 2, "every": 4, "reference": "pace", "models": ["a", "b"]}  # fmt: skip
    (path / "plan.json").write_text(json.dumps(plan))
    write_script(path / "measure.py")
    return path


def change_plan(folder: Path, **values: object) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, **values}))


def start(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "measure.py")], capture_output=True, text=True
    )


def test_the_script_goes_on_and_refuses_what_does_not_fit(folder: Path) -> None:
    file = folder / "measurements.jsonl"
    run = start(folder)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1].startswith("5 of 5 visits")
    facts, visits = read_visits(file)
    assert len(visits) == 5 and facts["minutes"] >= 0
    kept = file.read_text().splitlines()[:3]
    file.write_text("\n".join(kept) + '\n["a", 1')
    assert start(folder).returncode == 0
    assert read_visits(file)[1][:2] == visits[:2] and len(read_visits(file)[1]) == 5
    change_plan(folder, threads=2)
    run = start(folder)
    assert run.returncode == 2
    assert "was begun with another plan" in run.stderr and "Traceback" not in run.stderr
    (folder / "b.model").unlink()
    assert "lacks 1 of 3 models, such as 'b.model'" in start(folder).stderr
    (folder / "plan.json").unlink()
    assert "no plan can be read in" in start(folder).stderr


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts shell scripts in the place of programs; nothing else but the shell's is on PATH."""
    place = tmp_path / "bin"
    place.mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("THERE", str(tmp_path / "there"))

    def add(name: str, text: str) -> None:
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)

    return add


SSH = 'echo "$@" >> $THERE/../ssh.log; cd $THERE && exec sh -c "$2"'
SCP = """shift; last=; for word; do last=$word; done
here() { echo $1 | sed "s|^pi:|$THERE/|"; }
for word; do
  case $word in "$last") ;; *) cp "$(here $word)" "$(here $last)";; esac
done"""


def test_over_ssh(folder: Path, programs: Callable[[str, str], None], tmp_path: Path) -> None:
    programs("ssh", SSH)
    programs("scp", SCP)
    measure_over_ssh(folder, "pi", sys.executable)
    assert len(read_visits(folder / "measurements.jsonl")[1]) == 5
    log = (tmp_path / "ssh.log").read_text()
    (place,) = (tmp_path / "there").iterdir()
    assert f"pi cd {place.name} && {sys.executable} measure.py" in log
    programs("scp", f'case "$*" in *a.model*) exit 1;; esac\n{SCP}')  # copies no models again
    measure_over_ssh(folder, "pi", sys.executable)


@pytest.mark.parametrize(
    ("ssh", "scp", "message"),
    [
        ("echo 'ssh: connect to host pi: No route to host' >&2; exit 255", SCP,
         "'pi' cannot be reached: ssh: connect to host pi: No route to host"),
        (SSH, "echo 'scp: disk full' >&2; exit 1", "cannot copy to 'pi': scp: disk full"),
        (f"case $2 in *measure.py) echo 'error: no onnxruntime' >&2; exit 2;; esac; {SSH}",
         SCP, "measure.py has failed on 'pi': no onnxruntime"),
    ],
)  # fmt: skip
def test_faults_over_ssh(
    folder: Path, programs: Callable[[str, str], None], ssh: str, scp: str, message: str
) -> None:
    programs("ssh", ssh)
    programs("scp", scp)
    with pytest.raises(UserError) as caught:
        measure_over_ssh(folder, "pi")
    assert str(caught.value) == message


def test_without_ssh(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="'ssh' is not installed, or not on PATH; .* by hand"):
        measure_over_ssh(folder, "pi")
    change_plan(folder, engine="litert")
    with pytest.raises(UserError, match="'adb' is not installed, or not on PATH"):
        measure_over_adb(folder)


BENCHMARK = """INFO: Running benchmark for at least 1 iterations and at least 0 seconds
INFO: count=1 curr=41000
INFO: count=9 first=4651 curr=4665 min=4583 max=5019 avg=4671.5 std=63
INFO: Inference timings in us: Init: 5685, First inference: 41000, Inference (avg): 4671.5"""
ADB = f"""echo "$@" >> $THERE/../adb.log
case "$*" in
  devices) printf 'List of devices attached\\nHT71\\tdevice\\n\\n';;
  *manufacturer) echo Google;; *product.model) echo 'Pixel 4';; *soc.model) echo SM8150;;
  *sdk) echo 33;; *nproc) echo 8;; *'test -x'*) echo found;;
  *--num_runs*) cat <<'END'
{BENCHMARK}
END
;; esac"""


def test_over_adb(folder: Path, programs: Callable[[str, str], None], tmp_path: Path) -> None:
    programs("adb", ADB)
    change_plan(folder, engine="litert", threads=4)
    program = tmp_path / "benchmark_model"
    program.touch()
    measure_over_adb(folder, program=program)
    facts, visits = read_visits(folder / "measurements.jsonl")
    assert [visit[2] for visit in visits] == [4.6715] * 5
    assert facts["device"]["board"] == "Google Pixel 4"
    assert (facts["threads"], facts["cores"]) == (4, 8)
    log = (tmp_path / "adb.log").read_text().splitlines()
    assert f"-s HT71 push {program} /data/local/tmp/benchmark_model" in log
    (first, *_) = [line for line in log if "--graph=" in line]
    place = "/data/local/tmp"
    assert first.startswith(f"-s HT71 shell {place}/benchmark_model --graph={place}/spnas-")
    options = ("num_threads=4", "use_xnnpack=true", "warmup_runs=1", "num_runs=2", "min_secs=0.03")
    assert {f"--{option}" for option in options} <= set(first.split())
    assert sum("--graph=" in line for line in log) == 5
    measure_over_adb(folder, "HT71")
    assert sum("--graph=" in line for line in (tmp_path / "adb.log").read_text().splitlines()) == 5
    append_line(folder / "measurements.jsonl", {"threads": 1})
    with pytest.raises(UserError, match="is of another device or plan"):
        measure_over_adb(folder)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("devices) echo List;;", r"adb has no device that is ready; connect one, switch USB"),
        ("devices) printf 'List\\nX\\tunauthorized\\n';;", r"ready \(X is unauthorized\)"),
        (
            "devices) printf 'List\\nX\\tdevice\\nY\\tdevice\\n';;",
            "2 devices, X, Y; name one: --adb",
        ),
        ("*'test -x'*) echo missing;;", "/benchmark_model; .*--benchmark-model FILE"),
        ("*--num_runs*) echo 'ERROR: bad graph'; exit 1;;", "failed on 'pace': ERROR: bad graph"),
        ("*--num_runs*) echo nothing;;", r"printed no 'Inference \(avg\)' but 'nothing'"),
    ],
)
def test_faults_over_adb(
    folder: Path, programs: Callable[[str, str], None], answers: str, message: str
) -> None:
    programs("adb", ADB.replace('case "$*" in', f'case "$*" in\n{answers}'))
    change_plan(folder, engine="litert")
    with pytest.raises(UserError, match=message):
        measure_over_adb(folder)


def test_adb_runs_litert_alone(folder: Path) -> None:
    with pytest.raises(UserError, match="for onnxruntime on cpu; --adb runs LiteRT on the CPU"):
        measure_over_adb(folder)


def test_the_median_counts_where_it_is_printed() -> None:
    assert benchmark_runtime(BENCHMARK) == pytest.approx(4.6715)
    newer = BENCHMARK.replace("std=63", "std=63 p5=4590 median=4655 p95=5000")
    assert benchmark_runtime(newer) == pytest.approx(4.655)
    assert benchmark_runtime("Inference (avg): 1.2e+06") == pytest.approx(1200)


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
