from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.utils import collect_env

from backbones.errors import UserError
from detection.engine.console import LOGGERS
from detection.engine.run_folder import open_run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect_env, "collect_env_info", lambda: "the environment")


def _cfg(folder: Path, seed: int = 5) -> CfgNode:
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.SEED = str(folder), seed
    return cfg


def _open(folder: Path, *, resume: bool = False, eval_only: bool = False, seed: int = 5) -> Path:
    args = argparse.Namespace(resume=resume, eval_only=eval_only)
    return open_run(_cfg(folder, seed), args)


def test_what_a_run_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _open(tmp_path / "deep" / "run")
    first = (random.random(), float(torch.rand(())))
    for name in LOGGERS:
        logging.getLogger(f"{name}.part").info("hello from %s", name)
    console = capsys.readouterr().out
    log = (folder / "log.txt").read_text()
    for text in ("the environment", "MAX_ITER", *(f"hello from {name}" for name in LOGGERS)):
        assert log.count(text) == 1
    for name in ("backbones", "detection", "search"):
        assert console.count(f"hello from {name}") == 1
    assert f"Run in '{folder}' on " in console
    for text in ("the environment", "MAX_ITER", "hello from detectron2", "hello from fvcore"):
        assert text not in console
    saved = get_cfg()
    saved.merge_from_file(str(folder / "config.yaml"))
    assert saved.SEED == 5
    assert str(folder) == saved.OUTPUT_DIR
    _open(tmp_path / "other")
    assert first == (random.random(), float(torch.rand(())))


def test_lines_go_to_the_present_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _open(tmp_path / "first")
    _open(tmp_path / "second")
    capsys.readouterr()
    logging.getLogger("detection").warning("once")
    assert capsys.readouterr().out.count("once") == 1
    assert "once" not in (tmp_path / "first" / "log.txt").read_text()
    assert (tmp_path / "second" / "log.txt").read_text().count("once") == 1


@pytest.mark.parametrize(
    "trace", ["last_checkpoint", "metrics.json", "results.json", "model_0000009.pth"]
)
def test_an_earlier_run_is_not_overwritten(tmp_path: Path, trace: str) -> None:
    (tmp_path / trace).touch()
    with pytest.raises(UserError, match=f"holds an earlier run .{trace}.*--resume"):
        _open(tmp_path)
    assert not (tmp_path / "config.yaml").exists()
    _open(tmp_path, resume=True)
    _open(tmp_path, eval_only=True)


def test_an_evaluation_has_a_folder_of_its_own(tmp_path: Path) -> None:
    _open(tmp_path, seed=1)
    assert _open(tmp_path, eval_only=True, seed=2) == tmp_path / "evaluation"
    assert "SEED: 1" in (tmp_path / "config.yaml").read_text()
    assert "SEED: 2" in (tmp_path / "evaluation" / "config.yaml").read_text()
    assert "SEED: 2" not in (tmp_path / "log.txt").read_text()
    _open(tmp_path, resume=True, seed=3)
    assert "SEED: 3" in (tmp_path / "config.yaml").read_text()


_WRITER = """
import os, signal, sys
from backbones.files import atomic_path

with atomic_path(sys.argv[1]) as path:
    path.write_bytes(b"half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_unfinished_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    """Of this run alone, and by the name that the project gives them."""
    other = tmp_path / "other"
    other.mkdir()
    (other / ".lock").touch()
    for folder in (tmp_path, tmp_path / "family", other):
        command = [sys.executable, "-c", _WRITER, str(folder / "results.json")]
        assert subprocess.run(command).returncode == -signal.SIGKILL
    (tmp_path / "notes.tmp").touch()
    assert len(list(tmp_path.rglob(".results.json.*.tmp"))) == 3
    _open(tmp_path)
    (left,) = tmp_path.rglob(".*.tmp")
    assert left.parent == other
    assert (tmp_path / "notes.tmp").exists()


def test_resuming_with_other_values_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "Resuming with other values than before: "
    _open(tmp_path, seed=1)
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    _open(tmp_path, resume=True, seed=1)
    assert words not in capsys.readouterr().out
    _open(tmp_path, resume=True, seed=2)
    assert f"{words}SEED 1 → 2\n" in capsys.readouterr().out
    (tmp_path / "config.yaml").write_text("SOLVER: {BASE")
    _open(tmp_path, resume=True, seed=3)
    assert words not in capsys.readouterr().out


_HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write("process 123 on elsewhere")
file.flush()
print("locked", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"locked\n"
        for resume in (False, True):
            with pytest.raises(UserError, match="process 123 on elsewhere is working in"):
                _open(tmp_path, resume=resume)
    finally:
        holder.kill()
        holder.wait()
    # A killed process leaves no lock behind.
    _open(tmp_path)
    assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_the_lock_lasts(tmp_path: Path) -> None:
    """Another process cannot take it, even after this one opened the run twice."""
    _open(tmp_path)
    _open(tmp_path, resume=True)
    attempt = (
        "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    )
    command = [sys.executable, "-c", attempt, str(tmp_path / ".lock")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "BlockingIOError" in done.stderr


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to OUTPUT_DIR"):
        _open(tmp_path / "file" / "run")
