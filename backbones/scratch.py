"""Temporary folders, of which none outlives its process for long, even one that was killed."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backbones.file_lock import hold

_PREFIX = "spnas-"
_LOCK = ".scratch.lock"


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Yields an empty folder that is removed afterwards.

    It is ``$TMPDIR/spnas-<purpose>-…`` and locked as long as the process lives, which is how
    :func:`remove_abandoned` knows it from one whose process was killed.

    Args:
        purpose: a word for its name.
    """
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{purpose}-") as name:
        # locked before it has its name: nobody ever sees the lock of a living process free
        new = Path(name, f"{_LOCK}.new")
        with new.open("wb") as lock:
            if hold(lock.fileno()):
                new.rename(new.with_name(_LOCK))
            yield Path(name)


def remove_abandoned() -> None:
    """Removes the folders of :func:`scratch_folder` whose processes were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), path.open("r+b") as lock:
            if hold(lock.fileno()):
                shutil.rmtree(path.parent, ignore_errors=True)
