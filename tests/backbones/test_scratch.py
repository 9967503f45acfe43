"""Temporary folders are gone when their process is, however it ended."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from backbones.scratch import remove_abandoned, scratch_folder

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os
from backbones.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("x")
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_removed_at_its_end(temporary: Path) -> None:
    with scratch_folder("test") as folder:
        assert folder.parent == temporary
        assert folder.name.startswith("spnas-test-")
        remove_abandoned()
        assert folder.is_dir()
    assert not list(temporary.iterdir())


def test_folders_of_killed_processes_are_removed(temporary: Path) -> None:
    environment = {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment)
    assert killed.returncode == -9
    (left,) = temporary.glob("spnas-test-*")
    assert (left / "deep" / "file").exists()
    foreign = temporary / "spnas-of-a-user"
    foreign.mkdir()
    remove_abandoned()
    assert list(temporary.iterdir()) == [foreign]
