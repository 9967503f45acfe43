"""Results say what made them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backbones.inference.hardware import device_name
from detection.engine.provenance import commit, provenance


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    call = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()


def test_commit_of_a_checkout(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    file = tmp_path / "file"
    file.write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit(tmp_path) == head[:12]
    (tmp_path / "untracked").touch()
    assert commit(tmp_path) == head[:12]
    file.write_text("2")
    assert commit(tmp_path) == f"{head[:12]}+"


def test_the_command_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).resolve().parents[3]
    monkeypatch.chdir(root)
    for script in ("tools/benchmark.py", str(root / "tools" / "benchmark.py")):
        monkeypatch.setattr(sys, "argv", [script, "--output", "a b.json", "SEED", "1"])
        command = provenance()["command"]
        assert command == "python tools/benchmark.py --output 'a b.json' SEED 1"
    monkeypatch.setattr(sys, "argv", ["spnas tune-lambda", "--target", "80", "A", "b c"])
    assert provenance()["command"] == "spnas tune-lambda --target 80 A 'b c'"
    monkeypatch.setattr(sys, "argv", ["/elsewhere/x.py"])
    assert provenance()["command"] == "python /elsewhere/x.py"


@pytest.mark.parametrize(
    ("workers", "threads", "expected"),
    [
        (1, None, "1 thread"),
        (1, 4, "4 threads"),
        (3, 1, "3 processes of 1 thread"),
        (2, 4, "2 processes of 4 threads"),
    ],
)
def test_processes_and_threads(
    monkeypatch: pytest.MonkeyPatch, workers: int, threads: int | None, expected: str
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    found = provenance(workers=workers, threads=threads)["hardware"]
    assert found == f"{device_name('cpu')}, {expected}"
