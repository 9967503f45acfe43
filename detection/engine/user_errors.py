"""A user's mistake, recognised wherever it surfaces: here, in a worker, in another process."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

from backbones.errors import UserError

_LOST = ("onnection closed", "onnection reset", "remote process exited")
"""What gloo and NCCL say in a process whose neighbour is gone."""

_EXCEPTION_LINE = re.compile(r"^[\w.]+: (.*)", re.MULTILINE)


def user_message(error: UserError) -> str:
    """The message as one line.

    An error that a ``DataLoader`` worker re-raises carries the worker's traceback as its text;
    the message proper is what follows the last ``SomeError: `` in it.
    """
    text = str(error)
    if "Original Traceback" in text:
        # Everything up to the last unindented "Type: message" is the traceback.
        starts = [match.start(1) for match in _EXCEPTION_LINE.finditer(text)]
        text = text[starts[-1] :] if starts else text
    return " ".join(text.split())


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process of the run is gone."""
    return any(lost in str(error) for lost in _LOST)


@contextlib.contextmanager
def without_tracebacks_of_user_errors() -> Iterator[None]:
    """Keeps Detectron2's training loop from logging the traceback of a user's mistake.

    Nor that of another process's end, which is told elsewhere.
    """

    def is_no_user_error(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (
            isinstance(error, UserError) or (isinstance(error, RuntimeError) and is_lost(error))
        )

    logger = logging.getLogger("detectron2.engine.train_loop")
    logger.addFilter(is_no_user_error)
    try:
        yield
    finally:
        logger.removeFilter(is_no_user_error)
