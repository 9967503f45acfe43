"""What a run leaves, to compare two runs, or one before and after something."""

from __future__ import annotations

import hashlib
from pathlib import Path

from search.studies.kills.differences import differences


def contents(folder: Path, *without: str) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes, but for some folders or files."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in without
    }


def assert_same_runs(whole: Path, parts: Path) -> None:
    """Insists that two run folders hold the same, but for times and the course of logging.

    Of runs that were killed where no step was lost, so that no row of metrics is there twice.
    """
    assert differences(whole, parts) == []
    for metrics in whole.rglob("metrics.json"):
        other = parts / metrics.relative_to(whole)
        assert len(metrics.read_text().splitlines()) == len(other.read_text().splitlines())
