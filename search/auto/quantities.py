"""Runtimes and times as they are typed: ``15ms``, ``1h30m``."""

from __future__ import annotations

import re

from backbones.errors import UserError

_MILLISECONDS = {"": 1.0, "ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3}
_SECONDS = {"h": 3600, "m": 60, "s": 1}
_RUNTIME = re.compile(r"([+-]?\d*\.?\d+)\s*([a-zµ]*)", re.IGNORECASE)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[hms])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([hms])")


def parse_runtime(text: str, key: str = "--target") -> float:
    """A runtime in ms: ``15ms``, ``15`` (ms as well), ``0.015s``, ``900us``.

    Args:
        text: as it is typed.
        key: of the command line, for messages.

    Raises:
        UserError: if it is no number, has another unit, or is not above 0.
    """
    found = _RUNTIME.fullmatch(text.strip())
    if found is None or found[2].lower() not in _MILLISECONDS:
        raise UserError(f"{key} is '{text}'; expected a runtime in ms, s or us, such as 15ms")
    runtime = float(found[1]) * _MILLISECONDS[found[2].lower()]
    if not 0 < runtime < float("inf"):
        raise UserError(f"{key} is '{text}'; expected a runtime above 0, such as 15ms")
    return runtime


def parse_duration(text: str, key: str = "--budget") -> float:
    """A time in seconds: ``2h``, ``90m``, ``1h30m``, ``45s``.

    Args:
        text: as it is typed.
        key: of the command line, for messages.

    Raises:
        UserError: if it is none, or has no unit.
    """
    plain = text.strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        raise UserError(
            f"{key} is '{text}', a number without a unit; write {plain}s for seconds, {plain}m for "
            f"minutes or {plain}h for hours"
        )
    parts = _PART.findall(plain) if _DURATION.fullmatch(plain) else []
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not 0 < seconds < float("inf") or len({unit for _, unit in parts}) < len(parts):
        raise UserError(f"{key} is '{text}'; expected a time above 0, such as 2h, 90m or 1h30m")
    return seconds


def spoken(seconds: float) -> str:
    """A time as :func:`parse_duration` reads it; to the minute from two minutes on."""
    if seconds < 120 and seconds % 60:
        return f"{max(round(seconds), 1)}s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}m"
    return f"{hours}h{minutes:02d}m" if minutes else f"{hours}h"


def target_name(target: float) -> str:
    """A target in ms as folders and files are called by it: ``15ms``."""
    return f"{target:g}ms"
