"""Calls as jobs of a cluster, by submitit: sent, waited for, and what each has left.

A job writes what its call returned into a JSON file beside its log. A command that was ended finds
there what its jobs have done meanwhile, and goes on waiting for those that are under way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.file_lock import try_lock
from backbones.files import read_json, write_json
from search.studies.cluster.options import LAST_SIGNAL, Cluster, submitit_parameters
from search.studies.cluster.work import work

logger = logging.getLogger(__name__)

_LOOK_S = 1.0
"""Seconds between two looks at the jobs."""

_VISIBLE_S = 15.0
"""Seconds in which a file of another machine becomes visible on this one."""

_REQUEUED_S = 900.0
"""Seconds in which Slurm is seen to start a preempted job again, where it does; submitit asks it
for the states of jobs every ten minutes."""


Claim = tuple[str, str]
"""The file that a command has locked, and what it has written there."""


@dataclass(frozen=True)
class Call:
    """One of many calls that do not depend on each other.

    Attributes:
        name: for people; no two of a study share it.
        run: can be pickled, and for a cluster returns what JSON can hold.
        inputs: what decides, with the name, what it returns; plain data.
    """

    name: str
    run: Callable[[], Any]
    inputs: Any = None

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for name and inputs."""
        text = json.dumps([self.name, self.inputs], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def on_cluster(calls: Sequence[Call], most: int, cluster: Cluster) -> Iterator[tuple[int, Any]]:
    """Makes calls as jobs; results as they come.

    A job that fails, or is ended from outside, is named in the log with the path of its own, and
    the others go on.

    Args:
        calls: in the order in which they are sent.
        most: jobs at a time.
        cluster: where to.

    Yields:
        Which call, by its index, and what it returned.

    Raises:
        UserError: if the cluster takes no job; and when all have ended, if one has failed.
    """
    with claimed(cluster.folder) as claim:
        yield from _jobs(calls, most, _Queue(cluster, claim))


def _jobs(calls: Sequence[Call], most: int, queue: _Queue) -> Iterator[tuple[int, Any]]:
    running = {index: job for index, call in enumerate(calls) if (job := queue.found(call))}
    waiting = [index for index in range(len(calls)) if index not in running]
    failed = 0
    if calls:
        cluster = queue.cluster
        logger.info("%d jobs of %s; logs in '%s'", len(calls), cluster.kind, cluster.folder)
    try:
        while waiting or running:
            while waiting and len(running) < most:
                running[waiting[0]] = queue.sent(calls[waiting[0]])
                del waiting[0]
            ended = [(index, found) for index, job in running.items() if (found := job.ended())]
            for index, found in ended:
                job = running.pop(index)
                if "error" in found:
                    failed += 1
                    logger.warning("%s: %s; see '%s'", calls[index].name, found["error"], job.log)
                else:
                    yield index, found["result"]
                queue.forget(calls[index], job)
            if not ended:
                time.sleep(_LOOK_S)
    except BaseException:
        queue.leave(list(running.values()))
        raise
    if failed:
        raise UserError(
            f"{failed} of {len(calls)} jobs failed, as said above; what has ended is kept, and the "
            "same command does the rest"
        )


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Claim]:
    """Keeps other commands from sending the same jobs; the lock ends with this process.

    Raises:
        UserError: if another command has the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claim = (folder / ".lock").absolute(), f"process {os.getpid()} on {socket.gethostname()}"
    with open(claim[0], "a+", encoding="utf-8") as file:
        try:
            locked = try_lock(file)
        except OSError:  # some network file systems have no locks: better unprotected than unusable
            locked = True
        if not locked:
            file.seek(0)
            raise UserError(
                f"{file.read() or 'another command'} is waiting for the jobs in '{folder}'; wait "
                "for it, or end it first"
            )
        file.truncate(0)
        file.write(claim[1])
        file.flush()
        yield str(claim[0]), claim[1]


@dataclass
class _Job:
    """A job that is under way, or has ended.

    Attributes:
        handle: submitit's.
        outcome: what it leaves at its end.
        patience: seconds from its end in which that has to be seen.
        gone: when it was first seen not to be there.
    """

    handle: Any
    outcome: Path
    patience: float
    gone: float | None = None

    @property
    def log(self) -> Path:
        """What it prints."""
        return Path(self.handle.paths.stdout)

    def alive(self) -> bool:
        """Whether the cluster knows it as waiting or running."""
        done = self.handle.done(force_check=True)
        return not done and self.handle.state not in ("UNKNOWN", "PREEMPTED")

    def ended(self) -> dict[str, Any] | None:
        """``result`` or ``error``; None while it is under way."""
        if (found := _outcome(self.outcome)) is not None:
            return found
        preempted = self.handle.state == "PREEMPTED"  # submitit waits for it to be started again
        if not (self.handle.done() or preempted):
            self.gone = None
            return None
        self.gone = self.gone or time.monotonic()
        patience = _REQUEUED_S * preempted or self.patience
        if time.monotonic() < self.gone + patience:
            return None
        state = self.handle.state
        self.handle.cancel(check=False)  # what comes back later would come to nobody
        shown = "" if state in ("FINISHED", "INTERRUPTED") else f" ({state})"  # of local jobs
        return _outcome(self.outcome) or {"error": f"ended without a result{shown}"}


class _Queue:
    """Sends jobs, and remembers them for the next command."""

    def __init__(self, cluster: Cluster, claim: Claim) -> None:
        os.environ["SUBMITIT_PREEMPT_SIGNAL"] = LAST_SIGNAL  # jobs have this environment
        import submitit

        self.cluster = cluster
        self._follow = None if cluster.elsewhere else claim
        self._executor = submitit.AutoExecutor(cluster.folder, cluster=cluster.kind)
        self._executor.update_parameters(**submitit_parameters(cluster))
        kinds = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}
        self._kind = kinds[cluster.kind]
        self._book = cluster.folder / "jobs.json"
        self._sent: dict[str, str] = read_json(self._book, "jobs") if self._book.exists() else {}

    def sent(self, call: Call) -> _Job:
        """A new job."""
        outcome, threads = self._outcome(call), self.cluster.threads
        outcome.unlink(missing_ok=True)
        job = partial(work, pickle.dumps(call.run), str(outcome.absolute()), threads, self._follow)
        try:
            handle = self._executor.submit(job)
        except (RuntimeError, OSError) as error:
            (*_, last) = ["", *str(error).strip().splitlines()]
            raise UserError(
                f"{self.cluster.kind} takes no job for {call.name}: {last}; check --cluster-options"
            ) from error
        self._remember({**self._sent, call.digest: handle.job_id})
        return self._job(call, handle)

    def found(self, call: Call) -> _Job | None:
        """The job that an earlier command sent, if it is under way or has left a result."""
        known = self._sent.get(call.digest)
        if known is None:
            return None
        job = self._job(call, self._kind(self.cluster.folder, known))
        if "result" in (_outcome(job.outcome) or {}) or job.alive():
            return job
        job.handle.cancel(check=False)
        self.forget(call, job)
        return None

    def forget(self, call: Call, job: _Job) -> None:
        """What a job has left has been taken, or is of no use."""
        # of jobs on this machine, a later one may have the same number
        for file in (self._outcome(call), job.handle.paths.submitted_pickle):
            file.unlink(missing_ok=True)
        self._remember({key: job for key, job in self._sent.items() if key != call.digest})

    def leave(self, jobs: Sequence[_Job]) -> None:
        """Ends jobs on this machine; those of a cluster go on."""
        if not self.cluster.elsewhere:
            for job in jobs:
                job.handle.cancel()
        elif jobs:
            ids = " ".join(job.handle.job_id for job in jobs)
            logger.warning(
                "%d jobs go on: the same command waits for them, 'scancel %s' ends them",
                *(len(jobs), ids),
            )

    def _remember(self, sent: dict[str, str]) -> None:
        if sent != self._sent:
            self._sent = sent
            write_json(self._book, sent)

    def _outcome(self, call: Call) -> Path:
        return self.cluster.folder / f"{call.digest}.json"

    def _job(self, call: Call, handle: Any) -> _Job:
        patience = _VISIBLE_S if self.cluster.elsewhere else 0.0
        return _Job(handle, self._outcome(call), patience)


def _outcome(file: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = read_json(file, "job's result") if file.exists() else None
    return found
