"""Runs stages one after the other, with the time that is left, and keeps what each took."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from backbones.errors import UserError
from backbones.file_lock import hold
from backbones.files import read_json, write_json
from detection.engine.preemption import listening
from search.auto.plan import Plan
from search.auto.quantities import spoken
from search.auto.stages import Job
from search.command_line.registry import typed
from search.studies.commands import environment, leave

TIMES_FILE = "times.json"
_TRAINING = ("start", "search", "tune", "baseline")
_HEARTBEAT = 10.0
"""Seconds after which the time that a stage has taken so far is written down."""
_SLOWEST = 5.0
"""Times the estimate that one stage can make of those to come."""


class Times:
    """Seconds that stages took, over all resumes, in a file.

    Args:
        folder: of the whole.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / TIMES_FILE
        known = read_json(self._file, "times") if self._file.exists() else {}
        self.seconds: dict[str, float] = dict(known)

    def set(self, name: str, seconds: float) -> None:
        """Writes down what a stage has taken so far."""
        self.seconds[name] = round(seconds, 1)
        write_json(self._file, self.seconds)

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[Clock]:
        """Counts the time of a block to a stage, also where it raises."""
        clock = Clock(self, name)
        try:
            yield clock
        finally:
            clock.write()


class Clock:
    """The time of one stage, added to what it took before."""

    def __init__(self, times: Times, name: str) -> None:
        self._times, self._name = times, name
        self._before = times.seconds.get(name, 0.0)
        self._start = self._written = time.monotonic()

    def tick(self) -> None:
        """Writes the time down now and then."""
        if time.monotonic() - self._written >= _HEARTBEAT:
            self.write()

    def write(self) -> None:
        """Writes the time down."""
        self._written = time.monotonic()
        self._times.set(self._name, self._before + self._written - self._start)


def seconds_left(plan: Plan, jobs: Sequence[Job], times: Times) -> float:
    """Estimated time of the stages that are not done, by what those before them really took.

    Args:
        plan: with the estimates.
        jobs: all stages.
        times: of them.
    """
    estimates = plan.schedule.seconds
    done = [job for job in jobs if job.done()]
    trained = [job for job in done if job.kind in _TRAINING and job.name in times.seconds]
    planned = sum(estimates[job.kind] for job in trained)
    pace = sum(times.seconds[job.name] for job in trained) / planned if planned else 1.0
    pace = min(max(pace, 1 / _SLOWEST), _SLOWEST)
    left = estimates["report"]
    for job in jobs:
        if job not in done:
            whole = estimates[job.kind] * (pace if job.kind in _TRAINING else 1.0)
            left += max(whole - times.seconds.get(job.name, 0.0), 0.1 * whole)
    return left


def run_stage(job: Job, number: int, count: int, left: float, times: Times, lock: int) -> None:
    """Runs a stage's command, after a line that names it.

    Args:
        job: the stage.
        number: of it, from 1.
        count: of all.
        left: estimated seconds of this stage and those after it.
        times: is told what it takes.
        lock: the descriptor that its process inherits, so that the folder stays locked as long as
            any of both lives; -1 without one.

    Raises:
        UserError: if the command fails.
    """
    print(
        f"\n[{number}/{count}] {job.title}, about {spoken(left)} left in all\n$ {typed(job.words)}",
        flush=True,
    )
    own = environment(job.command) if job.command else {**os.environ, "PYTHONWARNINGS": "ignore"}
    inherited = (lock,) if lock >= 0 else ()
    with times.of(job.name) as clock, listening():
        process = subprocess.Popen([sys.executable, *job.words], env=own, pass_fds=inherited)
        with process:
            try:
                while (code := _waited(process)) is None:
                    clock.tick()
            except BaseException:
                leave(process)
                raise
    if code:
        raise UserError(
            f"stage {number} of {count} ended with exit code {code}, see above; the same command "
            "goes on there"
        )
    if not job.done():
        raise UserError(
            f"stage {number} of {count} has ended without what it is for ('{job.name}'); start "
            "the same command again"
        )


def _waited(process: subprocess.Popen[bytes]) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(_HEARTBEAT / 2)
    return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Makes a folder this call's alone, and that of the stage that it has started.

    Where an earlier call was killed and its stage still works, waits for that stage: its work is
    this call's own.

    Args:
        folder: made if missing.

    Yields:
        A descriptor for the process of a stage to inherit; -1 where there are no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name == "nt":
        yield -1
        return
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        if not hold(file.fileno()):
            file.seek(0)
            owner = file.read().strip() or "another process"
            print(f"{owner} or its stage still works in '{folder}': waiting for it", flush=True)
            hold(file.fileno(), wait=True)
        file.truncate(0)
        file.write(f"spnas auto (process {os.getpid()})\n")
        file.flush()
        yield file.fileno()
