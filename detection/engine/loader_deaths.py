"""Loader processes that die without an exception of their own: by whom, and the way out."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

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


def loader_death(error: BaseException) -> UserError | None:
    """What is to be said of an error that a data loader's process has left; None for others.

    PyTorch raises it wherever the main process happens to be, from its handler of SIGCHLD.

    Args:
        error: of the main process.
    """
    text = "\n".join(_chain(error))
    died = _DIED.search(text)
    if not isinstance(error, RuntimeError) or not (died or _TRANSFER.search(text)):
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


@contextlib.contextmanager
def explained_deaths() -> Iterator[None]:
    """Turns the death of a data loader's process into a user's error.

    Raises:
        UserError: with the cause and the way out.
    """
    try:
        yield
    except RuntimeError as error:
        if explained := loader_death(error):
            raise explained from None
        raise
