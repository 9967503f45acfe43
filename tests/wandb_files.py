"""What W&B wrote offline, read without W&B: a file is a log, as LevelDB's, of protocol buffers."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECONDS = 60
"""That W&B's own process may still be writing behind the end of a run."""


def records(folder: Path) -> Iterator[Any]:
    """Of all processes of a run, in their order."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime):
        data, position, part = path.read_bytes(), 7, b""
        while position + 7 <= len(data):
            if 32768 - position % 32768 < 7:
                position += 32768 - position % 32768
                continue
            length, kind = struct.unpack_from("<HB", data, position + 4)
            part += data[position + 7 : position + 7 + length]
            position += 7 + length
            if kind in (1, 4):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(part)
                part = b""
                yield record


def of_kind(folder: Path, kind: str) -> list[Any]:
    """The records of one kind: ``run``, ``history``, ``artifact``, ``exit``."""
    return [getattr(r, kind) for r in records(folder) if r.WhichOneof("record_type") == kind]


def wait_for_end(folder: Path, processes: int = 1) -> None:
    """Waits until as many processes of a run have come to their end in W&B's files."""
    deadline = time.monotonic() + SECONDS
    while len(of_kind(folder, "exit")) < processes:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def history(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    """Steps, and what was logged at each."""
    return [(row.step.num, _values(row.item)) for row in of_kind(folder, "history")]


def logged(folder: Path, name: str) -> Any:
    """What was logged by a name; parts of an image or a table by theirs."""
    found: dict[str, Any] = {}
    for _, values in history(folder):
        for key, value in values.items():
            if key == name:
                return value
            if key.startswith(f"{name}/"):
                found[key.removeprefix(f"{name}/")] = value
    return found


def summary(folder: Path) -> dict[str, Any]:
    """Final values, by names whose levels are separated by a full stop."""
    found: dict[str, Any] = {}
    for record in of_kind(folder, "summary"):
        for item in record.update:
            found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return found


def files(folder: Path) -> Path:
    """The folder of the pictures and tables of a run of one process."""
    (place,) = folder.glob("wandb/offline-run-*/files")
    return place


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
