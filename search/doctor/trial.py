"""Runs the probe in a process of its own, as often as it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.doctor import probe

__all__ = ["try_libraries"]

_ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 600
"""A driver that hangs is said as well."""


def try_libraries(data: Path) -> dict[str, dict[str, Any]]:
    """What the steps of the probe report.

    Args:
        data: folder of the data sets.

    Returns:
        By the name of the step; ``error`` says why one has come to no end.
    """
    reports: dict[str, dict[str, Any]] = {}
    while waiting := [name for name in probe.STEPS if name not in reports]:
        found, end = _run(waiting, data)
        reports |= found
        if left := [name for name in waiting if name not in found]:
            reports[left[0]] = {"error": end}
    return reports


def _run(names: Sequence[str], data: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """What the steps reported, and how the process ended."""
    words = [sys.executable, "-W", "ignore", "-", str(_ROOT), str(data.resolve()), *names]
    source = Path(probe.__file__).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as empty:
        try:
            done = subprocess.run(
                words,
                input=source,
                cwd=empty,  # a folder beside the caller is no installation
                env=_environment(os.environ),
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=_LIMIT_S,
            )
        except subprocess.TimeoutExpired as late:
            output = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else ""
            return _reports(output), f"no answer in {_LIMIT_S} seconds"
    return _reports(done.stdout), _end(done.returncode)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Relative entries of the module path would be looked up in the empty folder."""
    paths = environ.get("PYTHONPATH", "").split(os.pathsep)
    whole = os.pathsep.join(os.path.abspath(path) for path in paths if path)
    return {**environ, "PYTHONPATH": whole, "PYTHONIOENCODING": "utf-8"}


def _reports(output: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in output.splitlines():
        if line.startswith(probe.MARK):
            found |= json.loads(line.removeprefix(probe.MARK))
    return found


def _end(code: int) -> str:
    if code < 0:
        return f"Python is killed by {signal.Signals(-code).name} while trying it"
    return f"Python ends with exit code {code} while trying it"
