"""A lock that a process holds until it ends, however it ends; the file's text stays readable.

The libraries for it (filelock, portalocker) empty the file of a lock that another process holds,
or lock its first bytes, which nobody else can then read on Windows. The run folder needs both: the
lock, and who holds it.
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
