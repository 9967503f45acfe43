"""Looks at the journal of a profile while it grows: what is in it must not be done twice."""

from __future__ import annotations

import json
import time
from pathlib import Path

_EVERY = 0.05
"""Seconds between two looks."""


class Watch:
    """Converted models and visits below a run's folder; other kinds of runs have none.

    Args:
        run: folder of the run.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._models: dict[str, set[tuple[int, int]]] = {}
        self._visits: dict[Path, list[str]] = {}
        self._faults: list[str] = []
        self._last = 0.0

    def look(self, at_once: bool = False) -> None:
        """Notes what is there; not more often than is worth it, unless ``at_once``."""
        if not at_once and time.monotonic() < self._last + _EVERY:
            return
        for path in self.run.glob("*.partial/*.model"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            self._models.setdefault(path.name, set()).add((status.st_ino, status.st_mtime_ns))
        for path in self.run.glob("*.partial/visits.jsonl"):
            try:
                text = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                continue
            self._note(path, text[: text.rfind("\n") + 1].splitlines())
        self._last = time.monotonic()

    def _note(self, path: Path, visits: list[str]) -> None:
        before = self._visits.get(path, [])
        if visits[: len(before)] != before:
            self._faults.append(f"{path.name}: visits were lost")
        self._visits[path] = visits

    def faults(self) -> list[str]:
        """What was done twice, or lost."""
        twice = [name for name, found in self._models.items() if len(found) > 1]
        found = [f"{name}: converted twice" for name in twice]
        for path, visits in self._visits.items():
            made = [tuple(json.loads(line)[:2]) for line in visits]
            if len(set(made)) < len(made):
                found.append(f"{path.name}: visits were made twice")
        return [*self._faults, *found]
