"""Processes are killed at their moment with all below them, and what they leave is compared."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from backbones import UserError
from search.studies.kills import study as module
from search.studies.kills.kinds import KINDS, Kind
from search.studies.kills.processes import Ended, Runner
from search.studies.kills.study import Killer, Moment, kills_section, moments, run_study
from search.studies.kills.watch import Watch

SLOW = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


def test_a_moment_ends_a_process_and_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.studies.kills.processes.PRELOADED", ())
    script, child = tmp_path / "slow.py", tmp_path / "child"
    script.write_text(SLOW)
    runner = Runner({})
    ended = runner.run(
        [str(script), str(child)],
        tmp_path / "log",
        lambda _: child.exists() and bool(child.read_text()),
    )
    assert ended.killed
    deadline = time.monotonic() + 60
    while alive(int(child.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (tmp_path / "quick.py").write_text("print('hello'); raise SystemExit(3)")
    ended = runner.run([str(tmp_path / "quick.py")], tmp_path / "log", lambda _: False)
    assert (ended.killed, ended.code) == (False, 3)
    assert "hello" in (tmp_path / "log").read_text()


def alive(process: int) -> bool:
    """Whether it runs; one that is dead and not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_moments_are_spread_and_half_of_them_late() -> None:
    for kind in KINDS:
        runs = [moments(kind, number, 10) for number in range(10)]
        assert [run[0].fraction for run in runs[::2]] == pytest.approx(
            [0.05, 0.25, 0.45, 0.65, 0.85]
        )
        assert [run[0].file for run in runs[1::2]] == list(kind.late)
        assert sum(len(run) for run in runs) == 13


def test_a_file_is_a_moment_half_written_or_whole(tmp_path: Path) -> None:
    due = Moment(0.5, "deep/.model.pth.*").due(tmp_path, 10.0)
    assert not due(100.0)
    (tmp_path / "deep").mkdir()
    assert not due(100.0)
    (tmp_path / "deep" / ".model.pth.x.tmp").touch()
    assert due(0.0)
    (tmp_path / "deep" / ".model.pth.x.tmp").rename(tmp_path / "deep" / "model.pth")
    assert due(0.0)
    assert [Moment(0.5).due(tmp_path, 10.0)(seconds) for seconds in (4.9, 5.0)] == [False, True]


class MadeUp:
    """Runs that write one letter a start, and are killed after each but where ``whole``."""

    def __init__(self, text: Callable[[bool], str]) -> None:
        self.text = text

    def run(self, words: Sequence[str], log: Path, moment: Callable[[float], bool]) -> Ended:
        file = Path(words[0])
        resumed = file.exists()
        file.write_text("a")
        if moment(1.0):
            return Ended(True, -9, 1.0)
        file.write_text(self.text(resumed))
        return Ended(False, 0, 1.0)


@pytest.mark.parametrize("equal", [True, False])
def test_runs_that_leave_something_else_are_told(tmp_path: Path, equal: bool) -> None:
    (tmp_path / "tmp").mkdir()
    kind = Kind("made up", lambda _, run: [str(run / "file")], ("file",))
    runner: object = MadeUp(lambda resumed: "ab" if equal or not resumed else "aa")
    killer = Killer(kind, tmp_path, runner)  # type: ignore[arg-type]
    trial = killer.trial(1, 10)
    assert trial["killed"] == ["file"]
    assert trial["equal"] == equal
    assert trial["differences"] == ([] if equal else ["file: other bytes"])
    assert (tmp_path / "made_up" / "different1").exists() != equal


def test_a_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def trial(self: Killer, number: int, kills: int) -> dict[str, object]:
        made.append((self.kind.name, number))
        return {"killed": ["5 %"], "equal": number != 1, "differences": []}

    monkeypatch.setattr(Killer, "trial", trial)
    monkeypatch.setattr(module, "prepare", lambda _: None)
    monkeypatch.setattr(module, "Runner", lambda _: None)
    output = tmp_path / "kills.json"
    run_study(1, ["search"], tmp_path, output)
    study = run_study(2, ["search", "profile"], tmp_path, output)
    assert made == [("search", 0), ("search", 1), ("profile", 0), ("profile", 1)]
    assert study == json.loads(output.read_text())
    assert study["summary"][1] == {"kind": "profile", "runs": 2, "kills": 2, "late": 0, "equal": 1}
    assert "| profile" in kills_section(study)
    with pytest.raises(UserError, match="unknown kind 'demo'; expected one of search, classifier"):
        run_study(1, ["demo"], tmp_path, output)


def test_a_watch_sees_what_is_done_twice_or_lost(tmp_path: Path) -> None:
    folder = tmp_path / "table.partial"
    folder.mkdir()
    (folder / "a.model").write_text("1")
    (folder / "visits.jsonl").write_text('["a", 0, 1.5]\n["a", 1, 1')
    watch = Watch(tmp_path)
    watch.look(at_once=True)
    (folder / "visits.jsonl").write_text('["a", 0, 1.5]\n["a", 1, 1.7]\n')
    watch.look(at_once=True)
    assert watch.faults() == []
    (folder / "a.model").unlink()
    (folder / "a.model").write_text("12")
    os.utime(folder / "a.model", (1, 1))
    (folder / "visits.jsonl").write_text('["b", 0, 1.5]\n["b", 0, 1.7]\n')
    watch.look(at_once=True)
    assert watch.faults() == [
        "visits.jsonl: visits were lost",
        "a.model: converted twice",
        "visits.jsonl: visits were made twice",
    ]
