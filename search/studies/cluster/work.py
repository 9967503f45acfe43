"""What runs in a job. Jobs import this module first, so that it is quick to import."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import time
from types import FrameType

from backbones.errors import UserError
from backbones.file_lock import try_lock
from backbones.files import write_json

_LOOK_S = 1.0
"""Seconds between two looks at the command that a job follows."""


def work(call: bytes, outcome: str, threads: int, follow: tuple[str, str] | None) -> None:
    """In a job: makes a call, and writes what it returned, or in which line it failed.

    Args:
        call: pickled, so that the number of threads is set before PyTorch is imported.
        outcome: JSON file.
        threads: of the call.
        follow: the file that a command has locked, and what it has written there; the job ends
            with the command. None follows none.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if follow is not None:
        threading.Thread(target=_follow, args=follow, daemon=True).start()
    leaving = _noted(signal.SIGTERM)
    try:
        found = {"result": pickle.loads(call)()}
    except Exception as error:
        # of a job that the cluster takes away, and may start again, its state says all
        if not leaving:
            write_json(outcome, {"error": _in_one_line(error)})
        raise
    write_json(outcome, found)


def _in_one_line(error: Exception) -> str:
    from submitit.core.utils import UncompletedJobError

    if isinstance(error, UncompletedJobError):  # raised by submitit's handler of the last signal
        return "its time is over; the next job has as much, or raise timeout_min"
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    (first, *_) = [*str(error).splitlines(), ""]
    return f"{type(error).__name__}: {first}"


def _noted(number: int) -> list[int]:
    """Signals of a kind that came so far; what happened at one before happens still."""
    came: list[int] = []
    before = signal.getsignal(number)

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if callable(before):
            before(number, frame)

    if callable(before):  # submitit's, which keeps the job alive
        signal.signal(number, note)
    return came


def _follow(lock: str, command: str) -> None:
    """Ends this process when the command has ended, which then has its lock no longer."""
    while True:
        time.sleep(_LOOK_S)
        try:
            with open(lock, "r+", encoding="utf-8") as file:
                gone = try_lock(file) or file.read() != command
        except OSError:  # the folder has been removed, or has no locks
            return
        if gone:
            os._exit(1)
