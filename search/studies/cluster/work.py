"""What runs in a job. Jobs import this module first, so that it is quick to import."""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time

from backbones.errors import UserError
from backbones.files import write_json

_LOOK_S = 1.0
"""Seconds between two looks at the process that a job follows."""


def work(call: bytes, outcome: str, threads: int, follow: int | None) -> None:
    """In a job: makes a call, and writes what it returned, or in which line it failed.

    Args:
        call: pickled, so that the number of threads is set before PyTorch is imported.
        outcome: JSON file.
        threads: of the call.
        follow: the process whose end is the job's; None is none.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if follow is not None:
        threading.Thread(target=_follow, args=(follow,), daemon=True).start()
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


def _follow(process: int) -> None:
    """Ends this process when another one has ended."""
    while True:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(_LOOK_S)
