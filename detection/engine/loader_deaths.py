"""Loader processes that die without an exception of their own: by whom, and the way out."""

from __future__ import annotations

import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess

from backbones.errors import UserError

_CAUSES = (
    (
        r"[Tt]oo many open files|ancdata",
        "ran out of open files; raise the limit (ulimit -n 65536), or lower DATALOADER.NUM_WORKERS",
    ),
    (
        r"[Bb]us error|</torch_",
        "ran out of shared memory; give the machine more (docker run --shm-size 8g, or mount "
        "/dev/shm larger), or lower DATALOADER.NUM_WORKERS",
    ),
    (
        r"killed by signal: Killed|exit code -9\b",
        "was killed (SIGKILL), as a system without memory left does; free some, or lower "
        "DATALOADER.NUM_WORKERS or SOLVER.IMS_PER_BATCH",
    ),
    (
        r"killed by signal: (?P<signal>[^.]+)",
        "was ended by a signal ({signal}), as a fault in a library's own code does; see with "
        "DATALOADER.NUM_WORKERS 0 which image it is",
    ),
    (
        r"exited unexpectedly(?: with exit code (?P<code>-?\d+))?",
        "has ended by itself (exit code {code}); see with DATALOADER.NUM_WORKERS 0 why",
    ),
)
_DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? (?P<pid>[\d, ]+)\)")
_TRANSFER = re.compile(r"unable to [^<]*</torch_|ancdata")
"""Of tensors from one process to another, by files in shared memory."""
_ENDED_S = 5.0
"""Seconds that a process has to end after its sockets."""


def loader_death(error: BaseException) -> UserError | None:
    """What is to be said of an error that a data loader's process has left; None for others.

    PyTorch raises it wherever the main process happens to be, from its handler of SIGCHLD; the
    first sign can be a connection that breaks while a tensor is fetched.

    Args:
        error: of the main process.
    """
    if isinstance(error, RuntimeError):
        text = "\n".join(_chain(error))
    elif isinstance(error, OSError | EOFError):
        text = _ended(error)
    else:
        return None
    died = _DIED.search(text)
    if not (died or _TRANSFER.search(text)):
        return None
    which = f"a data loader's process ({died['pid']})" if died else "a data loader's process"
    for pattern, what in _CAUSES:
        if found := re.search(pattern, text, re.DOTALL):
            groups = {key: value or "unknown" for key, value in found.groupdict().items()}
            return UserError(f"{which} {what.format(**groups)}; continue with --resume")
    return None


def _chain(error: BaseException | None) -> Iterator[str]:
    """The texts of an error and of those that led to it: the first to notice may know less."""
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def _ended(error: BaseException) -> str:
    """What PyTorch would say of the process that a loader could not fetch a tensor from.

    The sockets of a process close a moment before it has ended.

    Args:
        error: of the main process; of any other than such a one nothing is said.
    """
    end = time.monotonic() + _ENDED_S
    workers = _asked_workers(error)
    while workers and time.monotonic() < end:
        for worker in workers:
            if code := worker.exitcode:
                killed = f"is killed by signal: {signal.strsignal(-code)}." if code < 0 else ""
                what = killed or f"exited unexpectedly with exit code {code}"
                return f"DataLoader worker (pid {worker.pid}) {what}"
        time.sleep(0.05)
    return ""


def _asked_workers(error: BaseException) -> list[BaseProcess]:
    """The processes of the loader that was fetching when an error was raised; none elsewhere."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_try_get_data":
            return list(getattr(frame.f_locals["self"], "_workers", ()))
    return []


def explaining_deaths(function: Callable[[], object]) -> None:
    """Calls a function, and turns the death of a data loader's process into a user's error.

    It is no context manager: a death is raised wherever Python is, the leaving of one included.

    Args:
        function: what reads from loaders.

    Raises:
        UserError: with the cause and the way out.
    """
    try:
        try:
            function()
        except (OSError, EOFError) as error:
            if explained := loader_death(error):
                raise explained from None
            raise
    except RuntimeError as error:
        if explained := loader_death(error):
            raise explained from None
        raise
