"""A user's mistake, recognised wherever it surfaces: here, in a worker, in another process."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

from backbones.errors import UserError
from backbones.files import cannot_write, is_of_disk
from detection.engine.loader_deaths import loader_death

_LOST = ("onnection closed", "onnection reset", "remote process exited")
"""What gloo and NCCL say in a process whose neighbour is gone."""

_EXCEPTION_LINE = re.compile(r"^[\w.]+: (.*)", re.MULTILINE)


def user_message(error: UserError) -> str:
    """The message as one line.

    An error that a ``DataLoader`` worker re-raises carries the worker's traceback as its text;
    the message proper is what follows the last ``SomeError:`` in it.
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


def as_user_error(error: BaseException | None) -> UserError | None:
    """An error as a user's mistake, or as one of the machine that a user can mend; else None."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and is_of_disk(error):
        return cannot_write(error.filename or "a file of the run", error)
    return loader_death(error) if error else None


@contextlib.contextmanager
def without_tracebacks_of_user_errors() -> Iterator[None]:
    """Keeps Detectron2's training loop from logging the traceback of a user's mistake.

    Nor that of another process's end, which is told elsewhere.
    """

    def is_no_user_error(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        lost = isinstance(error, RuntimeError) and is_lost(error)
        return not (lost or as_user_error(error))

    logger = logging.getLogger("detectron2.engine.train_loop")
    logger.addFilter(is_no_user_error)
    try:
        yield
    finally:
        logger.removeFilter(is_no_user_error)
