"""Tools as processes that are killed at a moment, with all that they started."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.errors import UserError

PRELOADED = (
    *("search.runs.run", "search.classification.classifier", "search.profiling.profiler"),
    *("search.studies.comparison.tables", "search.studies.tuning.objective"),
    *("torch.onnx", "onnxscript", "onnxruntime", "optuna", "sqlalchemy", "tensorboard"),
)
"""What the tools import. It is imported once: a kill costs nothing there, and takes long."""

_POLL = 0.004
"""Seconds between two looks at whether the moment has come."""


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        killed: whether it was killed; otherwise it had come to its end before the moment.
        code: its exit code.
        seconds: that it took.
    """

    killed: bool
    code: int
    seconds: float


class Runner:
    """Starts tools in processes of their own, from one that has imported what they need.

    Args:
        environment: changes to this process's environment, for all of them.

    Raises:
        UserError: on a system without ``kill -9``.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        if not hasattr(os, "killpg"):
            raise UserError("this system has no kill -9; run it on Linux or macOS")
        os.environ.update(environment)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        first = self._context.Process(target=_nothing)  # so that none of the runs waits for that
        first.start()
        first.join()

    def run(self, words: Sequence[str], log: Path, moment: Callable[[float], bool]) -> Ended:
        """Runs a tool to its end, or until it is killed with ``kill -9``, and all below it.

        Args:
            words: what follows ``python``.
            log: file that gets what is printed, at its end.
            moment: from seconds since the start → whether to kill now.
        """
        process = self._context.Process(target=_run, args=(list(words), str(log)))
        start = time.monotonic()
        process.start()
        assert process.pid is not None
        killed = False
        try:
            while process.is_alive() and not killed:
                killed = moment(time.monotonic() - start)
                time.sleep(_POLL * (not killed))
        finally:
            if process.is_alive():
                _kill_group(process.pid)
            process.join()
        code = process.exitcode
        assert code is not None
        return Ended(code == -signal.SIGKILL, code, time.monotonic() - start)


def _nothing() -> None:
    pass


def _kill_group(leader: int) -> None:
    """Kills a process, and those of its group, which a process leads from its first moment on."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:  # it has not come to lead its group yet
        os.kill(leader, signal.SIGKILL)


def _run(words: list[str], log: str) -> None:
    os.setsid()
    # its own processes start as those of a tool that nothing else has started
    multiprocessing.set_start_method(None, force=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
