"""What a run shows on the console. All of it, and everything else, is in its ``log.txt``."""

from __future__ import annotations

import logging
from pathlib import Path

__all__ = ["FILE_ONLY", "LOGGERS", "PROGRESS", "log_to"]

LOGGERS = ("detectron2", "fvcore", "backbones", "detection", "search")

FILE_ONLY = {"file_only": True}
"""``extra`` of a record that is not shown on the console, however serious."""

_LIBRARIES = ("detectron2.", "fvcore.")
PROGRESS = "detectron2.utils.events"
"""The logger of a training's lines of losses."""

_HARMLESS = "Category ids in annotations are not in"
"""A warning of Detectron2's at every load of COCO: ids with gaps are mapped."""


def log_to(name: str, folder: Path | None = None, rank: int = 0) -> None:
    """Sends a logger to the console, on rank 0, and to the ``log.txt`` of a run folder.

    Handlers of an earlier call are replaced. The console shows warnings, the progress of a
    training, and what the project itself says unless it is marked :data:`FILE_ONLY`; what else
    Detectron2 and fvcore say goes to the file alone.
    """
    from detectron2.utils.logger import setup_logger

    # Detectron2 remembers which handlers it made and never removes one, so that a second call
    # would print every line twice.
    setup_logger.cache_clear()
    logger = logging.getLogger(name)
    for handler in logger.handlers[:]:
        if type(handler) is logging.StreamHandler:
            logger.removeHandler(handler)
    others = logger.handlers[:]
    setup_logger(None if folder is None else str(folder), distributed_rank=rank, name=name)
    if rank == 0:
        console = next(handler for handler in logger.handlers if handler not in others)
        console.addFilter(_for_people)


def _for_people(record: logging.LogRecord) -> bool:
    if getattr(record, "file_only", False) or str(record.msg).strip().startswith(_HARMLESS):
        return False
    of_library = f"{record.name}.".startswith(_LIBRARIES) and record.name != PROGRESS
    return record.levelno >= logging.WARNING or not of_library
