"""One set of run folders for all tests of the report, which only read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.search.report.run_files import write_detector, write_search, write_whole


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``search`` and ``detection`` in a folder."""
    base = tmp_path_factory.mktemp("runs") / "study"
    write_search(base / "search")
    write_detector(base / "detection")
    return base


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ``spnas auto``."""
    return write_whole(tmp_path_factory.mktemp("whole") / "auto")
