"""Tools that train, started as a user would, and stopped as a scheduler would."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detection.engine.metrics import read_metrics

_POLL = 0.02
"""Seconds between two looks at a run."""

_LAST_WORDS = 60
"""Seconds that a run that was asked to leave has for it."""


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: its exit code; None where it had to be killed.
        asked: whether it was asked to leave before.
        seconds: that it took.
        output: all that it printed.
    """

    code: int | None
    asked: bool
    seconds: float
    output: str

    @property
    def last_line(self) -> str:
        """What it said at its end."""
        return (self.output.strip().splitlines() or [""])[-1][:300]


def run_tool(
    words: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    enough: Callable[[], bool],
    limit: float,
) -> Ended:
    """Runs a tool to its end, or until it is asked to leave, by SIGTERM.

    Args:
        words: what follows ``python``.
        environment: of its process.
        log: file that gets what it prints.
        enough: whether to ask it to leave now.
        limit: seconds after which it is killed.
    """
    start = time.monotonic()
    asked = False
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *words], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            end = start + limit
            while process.poll() is None and time.monotonic() < end:
                if not asked and enough():
                    process.send_signal(signal.SIGTERM)
                    asked, end = True, min(end, time.monotonic() + _LAST_WORDS)
                time.sleep(_POLL)
            code = process.poll()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    output = log.read_text(encoding="utf-8", errors="replace")
    return Ended(code, asked, time.monotonic() - start, output)


def losses(folder: Path) -> list[float]:
    """The total losses that a run has logged, in order."""
    return [row["total_loss"] for row in read_metrics(folder) if "total_loss" in row]


def losses_are_finite(folder: Path) -> bool:
    """Whether there are any, and all are numbers."""
    found = losses(folder)
    return bool(found) and all(map(math.isfinite, found))


def peak_bytes(output: str) -> int | None:
    """The most memory that PyTorch allocated on the GPU, as the progress lines say it."""
    found = re.findall(r"max_mem: (\d+)M", output)
    return max(map(int, found)) * 2**20 if found else None
