"""How long every tool takes to explain itself."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from backbones.errors import UserError
from backbones.paths import tools_folder
from detection.engine.provenance import provenance
from search.command_line.registry import tool_command


def help_report(repeats: int) -> dict[str, Any]:
    """The seconds of ``--help`` of every tool, at best and at worst, with a process for each.

    Args:
        repeats: times each tool is started, in turns.

    Raises:
        UserError: if a tool fails.
    """
    if repeats < 1:
        raise UserError(f"--repeats is {repeats}; expected 1 or more")
    tools = sorted(path.name for path in tools_folder().glob("*.py"))
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    for _ in range(repeats):
        for name in tools:
            seconds[name].append(_seconds(name))
    spread = {name: {"best": min(times), "worst": max(times)} for name, times in seconds.items()}
    return {**provenance(), "repeats": repeats, "seconds": spread}


def _seconds(name: str) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(tools_folder() / name), "--help"], capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(
            f"{tool_command(name)} --help fails: {done.stderr.strip().splitlines()[-1]}"
        )
    return round(time.perf_counter() - start, 3)
