"""Disk, shared memory, cores and threads."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest

from search.doctor import machine
from search.doctor.machine import GIB

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("gib", "status"), [(0.5, "broken"), (1, "note"), (9.9, "note"), (10, "ok"), (500, "ok")]
)
def test_disk(gib: float, status: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(0, 0, int(gib * GIB)))
    found = machine.disk("disk space here", Path())
    assert found.status == status
    assert found.text == f"{gib:.1f} GiB free in '{Path.cwd()}'"
    assert ("OUTPUT_DIR on another disk" in found.fix) == (status != "ok")
    found = machine.disk("disk space for temporary files", tmp_path)
    assert (found.fix == "export TMPDIR=FOLDER, one with 10 GiB or more") == (status != "ok")


def test_shared_memory_of_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(0, 0, 64 * 2**20))
    found = machine.shared_memory()
    assert found.status == "note"
    assert found.text == f"0.1 GiB free in '{tmp_path}'; loader processes may be killed (SIGBUS)"
    assert "docker run --shm-size=8g" in found.fix
    assert "DATALOADER.NUM_WORKERS 0" in found.fix
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(0, 0, 2 * GIB))
    assert machine.shared_memory().status == "ok"
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    assert machine.shared_memory().text == "not limited by this system"


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Four of eight cores may be used; the file for the quota of a container is not there."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("threads", "named", "status", "text"),
    [
        (4, "", "ok", "4 cores of 8 may be used, and runs take 4 threads"),
        (None, "", "ok", "4 cores of 8 may be used"),
        (8, "", "note", "and runs take 8 threads: they wait for each other"),
        (8, "1", "ok", "and runs take 1 thread (OMP_NUM_THREADS)"),
        (None, "6,2", "note", "runs take 6 threads (OMP_NUM_THREADS): they wait for each other"),
        (4, "many", "note", "OMP_NUM_THREADS is 'many'; expected a number, here 1 to 4"),
        (4, "0", "note", "OMP_NUM_THREADS is '0'; expected a number, here 1 to 4"),
    ],
)
@pytest.mark.usefixtures("four_cores")
def test_threads(threads: int | None, named: str, status: str, text: str) -> None:
    found = machine.cores(threads, named)
    assert found.status == status
    assert text in found.text
    assert found.fix == ("export OMP_NUM_THREADS=4" if status == "note" else "")


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("900000 100000", 4)],
)
def test_a_container_gives_time_of_fewer_cores(quota: str, cores: int, four_cores: Path) -> None:
    four_cores.write_text(f"{quota}\n", encoding="utf-8")
    assert machine.allowed_cores() == cores


def test_writing_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert machine.writing().status == "ok"
    assert not os.listdir(tmp_path)
