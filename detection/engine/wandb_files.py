"""What W&B keeps of an offline run: one folder for every process that worked on it.

W&B writes in blocks, so the file of a process that was killed lacks the last of what was logged,
ends in the middle of a record, or has nothing at all. ``wandb sync`` stops there, and uploads
nothing of the processes that followed.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

_HEADER = struct.Struct("<IHB")  # of a chunk: checksum, length, kind
_BLOCK = 32768
_START = 7  # bytes that mark the file as W&B's
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4

SYNC_VERSION = (0, 29)
"""The first W&B whose ``wandb sync`` appends one folder of a run to another."""

logger = logging.getLogger(__name__)


def segments(place: Path, run_id: str) -> list[Path]:
    """The folders of one run below W&B's, in the order in which they were begun.

    Args:
        place: W&B's folder, ``wandb`` below that of the run.
        run_id: there may be folders of other runs.
    """
    pattern = re.compile(rf"offline-run-(\d+_\d+)-{re.escape(run_id)}(?:-(\d+))?")
    found = []
    for path in place.glob("offline-run-*"):
        if (match := pattern.fullmatch(path.name)) and any(path.glob("*.wandb")):
            found.append((match[1], int(match[2] or 0), path))
    return [path for _, _, path in sorted(found)]


def mended(segment: Path) -> int | None:
    """Takes what a killed process left unfinished out of its file.

    Args:
        segment: a folder of :func:`segments` on which no process works.

    Returns:
        The last step in it, -1 without one; None if there is nothing to upload in it, not even
        what run it is: its file is removed then.
    """
    from wandb.proto import wandb_internal_pb2

    last, end, has_run = -1, 0, False
    file = next(segment.glob("*.wandb"), None)
    if file is None:
        return None
    for content, position in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(content)
        end = position
        has_run = has_run or record.HasField("run")
        if record.HasField("history"):
            last = max(last, record.history.step.num)
    if not has_run:
        logger.debug("nothing in '%s': removed", file)
        file.unlink()
        return None
    if end < file.stat().st_size:
        os.truncate(file, end)
    return last


def sync_command(folders: Sequence[Path], version: str) -> str:
    """The command that uploads all folders of a run.

    Args:
        folders: of :func:`segments`.
        version: of W&B.
    """
    command = shlex.join(["wandb", "sync", *map(str, folders)])
    installed = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if len(folders) > 1 and installed < SYNC_VERSION:
        command += " (all in one, with wandb 0.29 or newer: an older one keeps the last alone)"
    return command


def _records(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The whole records of a file, a log as LevelDB's, each with the position of its end."""
    position, parts = _START, b""
    while position + _HEADER.size <= len(data):
        if _BLOCK - position % _BLOCK < _HEADER.size:
            position += _BLOCK - position % _BLOCK
            continue
        _, length, kind = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        if not _WHOLE <= kind <= _LAST or position + length > len(data):
            return
        content = data[position : position + length]
        position += length
        parts = content if kind in (_WHOLE, _FIRST) else parts + content
        if kind in (_WHOLE, _LAST):
            yield parts, position
