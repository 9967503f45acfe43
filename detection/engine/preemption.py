"""Signals that ask a run to leave: it does so at the end of a step, with a checkpoint."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.util import Finalize
from types import FrameType

import torch
import torch.distributed as dist
from detectron2.utils import comm

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Of schedulers and containers; Slurm sends SIGTERM before it takes a machine away, and what
``--signal`` asks for."""


class Preempted(BaseException):
    """Ends a run that was asked to leave; not an ``Exception``, so that nothing takes it for one.

    Args:
        number: of the signal.
        where: how far the run has come, for the message.
    """

    def __init__(self, number: int, where: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{where}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell says of a process that a signal has ended: 143 for SIGTERM."""
        return 128 + self.number


class _Request:
    """What this process was asked for.

    Attributes:
        listening: whether signals are handled here; else they end the process.
        number: of the signal that came; 0 without one.
        deferred: whether the training looks for it itself.
    """

    listening = False
    number = 0
    deferred = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        first, self.number = not self.number, number
        if first and not self.deferred:
            raise Preempted(number)


_request = _Request()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """In the block, a signal raises :class:`Preempted`, or waits for the end of a step.

    Only the main thread can listen.
    """
    _request.__dict__.clear()
    before = {number: signal.signal(number, _request.receive) for number in SIGNALS}
    _request.listening = True
    ender = Finalize(None, _end_loaders, exitpriority=100)
    try:
        yield
    finally:
        _request.__dict__.clear()  # a later run of this process was not asked
        for number, handler in before.items():
            signal.signal(number, handler)
        if not any(child.daemon for child in multiprocessing.active_children()):
            ender.cancel()


def defer(deferred: bool) -> None:
    """Says whether the training looks for signals itself, at the end of its steps."""
    _request.deferred = deferred


def asked() -> int:
    """The number of the signal that came to a process of the run; 0 without one.

    All processes ask at the same time, and get the same answer.
    """
    if not _request.listening or comm.get_world_size() == 1:
        return _request.number
    found = torch.tensor(_request.number)
    # on the CPU: nobody waits for a GPU
    dist.all_reduce(found, dist.ReduceOp.MAX, group=comm._get_global_gloo_group())
    return int(found)


@contextlib.contextmanager
def forwarded(pids: Sequence[int]) -> Iterator[list[int]]:
    """Hands signals on to other processes; yields the list of those that came."""
    came: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def loader_start() -> Callable[[int], None] | None:
    """``worker_init_fn`` of a data loader: its processes stay as long as the run.

    Slurm signals all processes of a job, and one that is gone would end the run as a failure.
    """
    return _ignore_signals if _request.listening else None


def _ignore_signals(worker: int) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end_loaders() -> None:
    """``multiprocessing`` ends them by SIGTERM, which they ignore, and waits for that."""
    if hasattr(signal, "SIGCHLD"):  # by which PyTorch takes their end for a failure of the run
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
