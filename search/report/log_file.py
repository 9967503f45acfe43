"""What ``log.txt`` says of a run: commands, versions, data sets and what was odd in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOG_FILE = "log.txt"
_LINE = re.compile(r"\[(\d\d/\d\d \d\d:\d\d:\d\d)\] ([\w.]+) ([A-Z]+): (.*)")
_COMMAND = re.compile(r"([\w.-]+\.py|spnas [\w-]+)( .*)?")
_DATA_LOGGERS = ("detection.data.loader", "search.classification.trainer")
_VERSIONS = ("Python", "PyTorch", "torchvision", "detectron2", "numpy", "GPU available")
"""Rows of Detectron2's table of the environment that make a difference to figures."""


@dataclass(frozen=True)
class LogFacts:
    """What is read from a log; all of it is empty without one.

    Attributes:
        commands: that started, or went on with, the run, in order.
        machine: what it ran on, and the commit of the code.
        versions: of libraries, by name.
        data: sizes of the data sets.
        findings: what was odd in them.
    """

    commands: tuple[str, ...] = ()
    machine: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    data: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


def read_log(folder: Path) -> LogFacts:
    """Reads a run's log as far as it is there and can be read."""
    try:
        text = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return LogFacts()
    lines = text.splitlines()
    said = [match.groups() for match in map(_LINE.fullmatch, lines) if match]
    of_runs = [words for _, name, _, words in said if name == "detection.engine.run_folder"]
    return LogFacts(
        commands=_distinct([words for words in of_runs if _COMMAND.fullmatch(words)]),
        machine=next((w.removeprefix("On ") for w in of_runs[::-1] if w.startswith("On ")), ""),
        versions=_versions(lines),
        data=_distinct(
            [w for _, n, _, w in said if n in _DATA_LOGGERS and w.startswith(("Train", "Eval"))]
        ),
        findings=_distinct([w for _, name, _, w in said if name == "detection.data.findings"]),
    )


def _distinct(items: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _versions(lines: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Rows of the last table of the environment: a name, two spaces or more, and its value."""
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition("  ")
        if name in _VERSIONS and value.strip():
            found[name] = re.split(r" @| \(", value.strip())[0]
    return tuple(found.items())
