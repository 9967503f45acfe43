"""A training's line of losses, time and learning rate."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from detectron2.utils.events import CommonMetricPrinter

from detection.engine.console import PROGRESS


class ProgressPrinter(CommonMetricPrinter):
    """Detectron2's line of losses, time and learning rate, with a note at its end.

    Args:
        max_iter: for the estimated time of arrival.
        note: called for every line.
    """

    def __init__(self, max_iter: int, note: Callable[[], str]) -> None:
        super().__init__(max_iter)
        self.logger = _Noted(logging.getLogger(PROGRESS), note)


class _Noted(logging.LoggerAdapter):
    def __init__(self, logger: logging.Logger, note: Callable[[], str]) -> None:
        super().__init__(logger, {})
        self._note = note

    def process(
        self, msg: str, kwargs: MutableMapping[str, Any]
    ) -> tuple[str, MutableMapping[str, Any]]:
        return f"{msg.rstrip()}  {self._note()}".rstrip(), kwargs
