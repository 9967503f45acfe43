"""Every part is kept when it is measured, whatever happens to it or to those after it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backbones.errors import UserError
from search.studies.benchmarks.gpu import report as module
from search.studies.benchmarks.gpu.report import PARTS, gpu_report, measure_part, part_lines
from search.studies.benchmarks.gpu.setting import Measurement, Part, Setting

PROCESS = """#!{python}
import json, os, pathlib, subprocess, sys, time
part, setting, path = sys.argv[3:]
setting = json.loads(setting)
first = dict(seconds=1.5, device=setting['device'], only=setting['only'])
pathlib.Path(path).write_text(json.dumps(dict(first=first)))
if part == 'a':
    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    pathlib.Path(setting['folder'], 'child').write_text(str(child.pid))
    time.sleep(60)
if part == 'b':
    print('no such operator')
    sys.exit(1)
"""
"""In place of a part's own process: its figures, then too long a time, or an error."""


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parts' processes are scripts; the folder of the benchmark."""
    script = tmp_path / "python"
    script.write_text(PROCESS.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(module, "CPU_SECONDS", 1)
    short = {name: Part(f"part {name}", 2, part.measurements) for name, part in PARTS.items()}
    monkeypatch.setattr(module, "PARTS", short)
    return tmp_path / "gpu"


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().split()[2] != "Z"


def test_a_part_has_a_time_limit_and_an_error_of_its_own(
    processes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = processes / "gpu.json"
    setting = Setting("cpu", True, processes, ("bfloat16",))
    report = gpu_report(setting, ["a", "b", "c"], output)
    assert json.loads(output.read_text()) == report
    parts = report["parts"]
    assert [*parts] == ["a", "b", "c"]
    assert "its time limit" in parts["a"]["error"]
    assert parts["b"]["error"] == "exit code 1: no such operator"
    assert parts["c"]["error"] is None
    for part in parts.values():
        assert part["figures"] == {"first": {"seconds": 1.5, "device": "cpu", "only": ["bfloat16"]}}
        assert {"command", "commit", "hardware", "torch", "seconds"} <= part.keys()
    if sys.platform == "linux":
        assert not is_running(int((processes / "child").read_text()))
    printed = capsys.readouterr().out
    assert "c: part c\n   first: seconds 1.5, device cpu, only bfloat16\n" in printed
    assert "error: exit code 1: no such operator" in printed


def test_parts_measured_before_stay(processes: Path) -> None:
    output = processes / "gpu.json"
    gpu_report(Setting("cpu", True, processes), ["c"], output)
    first = json.loads(output.read_text())["parts"]["c"]
    gpu_report(Setting("cpu", True, processes), ["d"], output)
    parts = json.loads(output.read_text())["parts"]
    assert [*parts] == ["c", "d"]
    assert parts["c"] == first


@pytest.mark.parametrize(
    ("names", "content", "message"),
    [
        (["a", "g"], None, "--only has 'g'; expected some of a b c d e f"),
        (["a"], "{}", "is no report of this benchmark"),
    ],
)
def test_mistakes_are_answered_at_once(
    tmp_path: Path, names: list[str], content: str | None, message: str
) -> None:
    output = tmp_path / "gpu.json"
    if content is not None:
        output.write_text(content)
    with pytest.raises(UserError, match=message):
        gpu_report(Setting("cpu", True, tmp_path), names, output)


def test_a_precision_that_the_device_lacks_is_answered_at_once(tmp_path: Path) -> None:
    setting = Setting("cpu", True, tmp_path, ("float32", "float16"))
    with pytest.raises(UserError, match="has 'float16'; expected some of float32 bfloat16"):
        gpu_report(setting, [], tmp_path / "gpu.json")


def test_a_measurement_that_fails_does_not_end_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is there is written before the next one begins."""
    path = tmp_path / "x.json"
    before: list[Any] = []

    def measured(value: float) -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            before.append(json.loads(path.read_text()) if path.exists() else {})
            return {"ratio": 1 / value}

        return measure

    def measurements(setting: Setting) -> Iterator[Measurement]:
        yield from (("one", measured(2)), ("two", measured(0)), ("three", measured(4)))

    monkeypatch.setattr(module, "PARTS", {"x": Part("x", 1, measurements)})
    measure_part("x", Setting("cpu", True, tmp_path), path)
    found = json.loads(path.read_text())
    assert found["one"]["ratio"] == 0.5
    assert found["two"]["error"] == "ZeroDivisionError: division by zero"
    assert found["three"]["ratio"] == 0.25
    assert [[*figures] for figures in before] == [[], ["one"], ["one", "two"]]


def test_the_parts_fit_eight_minutes() -> None:
    assert [*PARTS] == list("abcdef")
    assert sum(part.seconds for part in PARTS.values()) <= 480


def test_lines_name_every_figure() -> None:
    figures = {"float32": {"batch": 2, "steps": {"ours": {"seconds": 0.123456, "peak": None}}}}
    entry = {"figures": figures, "seconds": 3.2, "error": None}
    assert part_lines(entry).splitlines() == [
        "   float32: batch 2",
        "   float32, steps, ours: seconds 0.1235",
        "   (3 s)",
    ]
