"""A prepared folder without any conversion: its script, and what starts it over ssh and adb."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backbones import UserError
from backbones.inference.board.turns import append_line, read_visits
from search.profiling.prepared import write_script
from search.profiling.remote import benchmark_runtime, measure_over_adb, measure_over_ssh
from tests.backbones.inference.test_board import relu


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
