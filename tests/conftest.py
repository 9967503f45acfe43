"""What every test gets: no trace of another test's run in the loggers or in the environment."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.tiny_coco import tiny_coco  # noqa: F401

LOGGERS = ("detectron2", "fvcore", "backbones", "detection", "search")


@pytest.fixture(autouse=True)
def isolated_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keeps W&B off the network, and takes a run's log handlers away when its test ends."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        for handler in logger.handlers[:]:
            if handler not in handlers:
                logger.removeHandler(handler)
                handler.close()
        logger.propagate = True
        logger.setLevel(level)
