"""Single values of annotations, as loosely as people write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FARTHEST = 2.0**20
"""Pixels: no image is as large, and whoever draws coordinates beyond it runs out of memory."""

_NOT_SET = (None, 0, False, "", "0", "false", "False")


def is_crowd(annotation: Mapping[str, Any]) -> int:
    """``iscrowd`` as 0 or 1; missing, null and text are read as people mean them."""
    return int(is_set(annotation.get("iscrowd")))


def is_set(value: Any) -> bool:
    """Whether a flag is set; missing, null, 0 and text for it are not."""
    return not (value == 0 or value in _NOT_SET)


def number_or_nan(value: Any) -> float:
    """A finite number as float; NaN for anything else, also for text and truth values."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:  # an integer beyond any float
        return math.nan


def whole(side: Any) -> Any:
    """A side such as 640.0 as an integer; everything else as it is."""
    return int(side) if isinstance(side, float) and side.is_integer() else side
