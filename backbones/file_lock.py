"""Locks that a process holds until it ends, however it ends; the file's text stays readable.

The run folder needs both: the lock, and who holds it. filelock opens a lock's file with O_TRUNC, so
whoever asks for a lock that is taken would empty the text.
"""

from __future__ import annotations

import os
from typing import IO

# Windows lets nobody read a locked byte, so the one that is locked lies far behind the text.
_LOCKED_BYTE = 1 << 30


def try_lock(file: IO[str]) -> bool:
    """Locks an open file for this process, without waiting.

    The operating system gives the lock up when the process ends, or closes any handle of the file.

    Args:
        file: open for writing.

    Returns:
        Whether it is now this process's; False if another one has it.

    Raises:
        OSError: if the file system has no locks.
    """
    if os.name == "nt":
        return _try_lock_windows(file.fileno())
    return _try_lock_posix(file.fileno())


def _try_lock_posix(descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _try_lock_windows(descriptor: int) -> bool:
    import msvcrt

    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except PermissionError:
        return False
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)
    return True


def hold(descriptor: int, *, wait: bool = False) -> bool:
    """Locks an open file itself, which other handles of it in this process may close.

    Windows has no such lock, nor have some network file systems.

    Args:
        descriptor: of the open file.
        wait: until another process gives it up.

    Returns:
        Whether it is now this process's.
    """
    if os.name == "nt":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
