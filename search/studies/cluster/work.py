"""What runs in a job. Jobs import this module first, so that it is quick to import."""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time

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
    try:
        found = {"result": pickle.loads(call)()}
    except UserError as error:
        write_json(outcome, {"error": " ".join(str(error).split())})
        raise
    except Exception as error:
        (first, *_) = [*str(error).splitlines(), ""]
        write_json(outcome, {"error": f"{type(error).__name__}: {first}"})
        raise
    write_json(outcome, found)


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
