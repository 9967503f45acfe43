"""What every test gets: no trace of another test's run in the process or in the environment."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from detection.data import own
from tests.tiny_coco import tiny_coco  # noqa: F401

LOGGERS = (None, "detectron2", "fvcore", "backbones", "detection", "search")
LEVELS = {name: logging.getLogger(name).level for name in LOGGERS}


@pytest.fixture(autouse=True)
def isolated_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keeps W&B off the network, and takes a run's log handlers away when its test ends."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    handlers = {name: logging.getLogger(name).handlers[:] for name in LOGGERS}
    yield
    for name, before in handlers.items():
        logger = logging.getLogger(name)
        for handler in logger.handlers[:]:
            if handler not in before:
                logger.removeHandler(handler)
                handler.close()
        logger.propagate = True
        logger.setLevel(LEVELS[name])  # not the one before: a module's run may have set that


@pytest.fixture(autouse=True)
def isolated_catalog() -> Iterator[None]:
    """Takes out of Detectron2's catalog what a test put in: a name is free for one data set."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
        own._registered.pop(name, None)
