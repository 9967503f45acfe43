"""Ids of images, classes and objects, which may be any number or text."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from typing import Any


def is_id(value: Any) -> bool:
    """Whether a value of JSON can tell images, classes or objects apart."""
    if isinstance(value, bool):
        return False
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def id_order(value: Any) -> tuple[int, Any]:
    """Sorts ids: numbers first, also those that are written as text, then other text.

    What is no id comes last, so that a file that has such can still be looked at.
    """
    if not is_id(value):
        return 2, repr(value)
    if not isinstance(value, str):
        return 0, value
    return (0, int(value)) if re.fullmatch(r"-?[0-9]{1,40}", value) else (1, value)


def positions(ids: Sequence[Hashable]) -> dict[Hashable, int]:
    """Where each id stands first."""
    found: dict[Hashable, int] = {}
    for position, value in enumerate(ids):
        found.setdefault(value, position)
    return found
