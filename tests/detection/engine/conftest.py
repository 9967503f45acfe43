"""What the engine's tests share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname}: {record.getMessage()}")


@pytest.fixture
def log_of() -> Iterator[Callable[[str], list[str]]]:
    """``log_of(name)`` collects a logger's lines; unlike caplog, also without propagation."""
    attached: list[tuple[logging.Logger, _Lines]] = []

    def attach(name: str) -> list[str]:
        logger, handler = logging.getLogger(name), _Lines()
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
        attached.append((logger, handler))
        return handler.lines

    yield attach
    for logger, handler in attached:
        logger.removeHandler(handler)
