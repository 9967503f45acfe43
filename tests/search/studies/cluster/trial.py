"""A trial that jobs of tests run; quick to import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from backbones.errors import UserError


def run(folder: Path, number: int) -> dict[str, object]:
    """Does what files of its number ask for, and counts how often it was begun."""
    with (folder / f"{number}.runs").open("a") as file:
        file.write(f"{os.getpid()}\n")
    while (folder / f"{number}.wait").exists():
        time.sleep(0.05)
    if (folder / f"{number}.kill").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (folder / f"{number}.fail").exists():
        raise ValueError("no such thing\nat all")
    if (folder / f"{number}.mistake").exists():
        raise UserError("SEED is\n'x'; expected a number")
    return {"score": number / 2, "threads": os.environ["OMP_NUM_THREADS"]}


def processes(folder: Path, number: int) -> list[int]:
    """Those that have begun it."""
    file = folder / f"{number}.runs"
    return list(map(int, file.read_text().split())) if file.exists() else []


def wait_for(folder: Path, number: int) -> int:
    """The process that runs it, once there is one."""
    while not (found := processes(folder, number)):
        time.sleep(0.05)
    return found[-1]
