"""Runs that are asked to leave: they do so behind a step, and go on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detection.engine import preemption
from detection.engine.metrics import has_row
from detection.engine.preemption import Preempted, forwarded, listening
from search.studies.kills.differences import differences
from tests.detection.engine.test_resumable import DistributedRun
from tests.detection.engine.test_trainer import Run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def _listening() -> Iterator[None]:
    with listening():
        yield


def ask_at(trainer: Run | DistributedRun, iteration: int, number: int = signal.SIGTERM) -> None:
    """Sends a signal in the middle of a step."""
    step = trainer.run_step

    def run_step() -> None:
        if trainer.iter == iteration:
            os.kill(os.getpid(), number)
        step()

    trainer.run_step = run_step  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("iteration", "number"),
    # behind a checkpoint; behind an evaluation that is due; at the last step
    [(4, signal.SIGTERM), (7, signal.SIGUSR1), (10, signal.SIGTERM)],
)
@pytest.mark.usefixtures("_listening")
def test_a_run_that_is_asked_leaves_and_goes_on(
    tmp_path: Path, iteration: int, number: int
) -> None:
    whole = Run(tmp_path / "whole", 11)
    whole.train()
    first = Run(tmp_path / "parts", 11)
    ask_at(first, iteration, number)
    with pytest.raises(Preempted, match=f"after iteration {iteration + 1} of 11") as stop:
        first.train()
    assert stop.value.exit_code == 128 + number
    assert first.losses == whole.losses[: iteration + 1]
    assert not has_row(tmp_path / "parts", iteration)
    preemption._request.number = 0  # a new process
    second = Run(tmp_path / "parts", 11)
    second.settled = lambda: False  # type: ignore[method-assign]
    second.resume_or_load(resume=True)
    assert second.start_iter == iteration + 1
    second.train()
    assert second.losses == whole.losses[iteration + 1 :]
    extra = {f"model_{iteration:07d}.pth: not expected", "model_0000004.pth: not expected"}
    assert set(differences(tmp_path / "whole", tmp_path / "parts")) <= extra


@pytest.mark.usefixtures("_listening")
def test_outside_a_training_a_signal_ends_at_once() -> None:
    with pytest.raises(Preempted, match="stopped by SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # is on its way out


@pytest.mark.usefixtures("_listening")
def test_a_failure_is_not_hidden_by_a_signal(tmp_path: Path) -> None:
    run = Run(tmp_path, 11)
    run.fail_at = 3
    ask_at(run, 3)
    with pytest.raises(Exception, match="the data set has a hole"):
        run.train()


def test_signals_are_handed_on() -> None:
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.pause()
        os._exit(0)
    with forwarded([pid]) as came:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert came == [signal.SIGUSR1]
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGUSR1


LOADING = """
import os, signal
from torch.utils.data import DataLoader
from detection.engine.preemption import listening, loader_start
here = listening()
here.__enter__()
loader = iter(DataLoader(range(10**9), num_workers=4, worker_init_fn=loader_start()))
first = next(loader)
worker, *_ = loader._workers
for number in (signal.SIGTERM, signal.SIGUSR1):
    os.kill(worker.pid, number)
taken = [next(loader) for _ in range(100)]
print("goes on", len(taken), worker.is_alive())
kept = [loader]  # as a traceback may keep it
"""


def test_loader_processes_stay_with_their_run_and_end_with_it() -> None:
    command = [sys.executable, "-W", "ignore", "-c", LOADING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "goes on 100 True\n"), done.stderr


CHILD = """
import multiprocessing
def load():
    global kept
{}
child = multiprocessing.get_context("fork").Process(target=load)
child.start()
child.join()
raise SystemExit(child.exitcode)
"""


def test_the_end_of_loader_processes_is_no_failure_of_one_process_of_several() -> None:
    """Whose exit code is that of all that it does on its way out."""
    program = CHILD.format(textwrap.indent(LOADING, "    "))
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on 100 True\n", "")


def _two_ranks(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    run = DistributedRun(f"{folder}/run", rank)
    if rank == 1:
        ask_at(run, 2)
    try:
        with listening():
            run.train()
    except Preempted as stop:
        Path(folder, f"left{rank}").write_text(f"{run.finished} {stop.exit_code}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_processes_leave_behind_the_same_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # of libraries, in the new processes
    monkeypatch.syspath_prepend(ROOT)  # for them to find this module
    mp.spawn(_two_ranks, args=(str(tmp_path),), nprocs=2)
    assert [(tmp_path / f"left{rank}").read_text() for rank in (0, 1)] == ["3 143"] * 2
    kept = torch.load(tmp_path / "run" / "model_0000002.pth", weights_only=True)
    assert len(kept["trainer"]["random_states"]) == 2
