"""Worker processes: one thread each, errors handed back, none left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detection.engine.provenance import provenance
from search.workers import in_processes, worker_threads

PARENT = """
import os, time
from search.workers import in_processes
if __name__ == "__main__":
    for _, pid in in_processes(os.getpid, [()], 1):
        print(pid, flush=True)
        next(in_processes(time.sleep, [(60,)], 1))
"""


def test_calls_run_on_one_thread_each() -> None:
    assert sorted(in_processes(torch.get_num_threads, [()] * 3, 2)) == [(0, 1), (1, 1), (2, 1)]


def test_results_say_how_many_threads_the_workers_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    for workers, expected in ((1, "8 threads"), (2, "2 processes of 1 thread")):
        facts = provenance(workers=workers, threads=worker_threads(workers))
        assert str(facts["hardware"]).endswith(f", {expected}")


def test_an_error_ends_the_work() -> None:
    with pytest.raises(ValueError, match="'no number'"):
        list(in_processes(float, [("no number",), ("1",)], 1))


def test_a_killed_command_leaves_no_process_behind(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) != parent.pid
        parent.kill()
        parent.communicate(timeout=10)  # the pipe ends when its last holder, the worker, does
