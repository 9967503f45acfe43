"""Figures in messages and tables, with digits that tell values apart in any unit."""

from __future__ import annotations


def shown(value: float) -> str:
    """Two decimals from 1 on, three significant digits below: ``79.49``, ``0.0123``.

    A runtime in seconds, or a count in millions, would be 0.01 or 0.00 with fixed decimals.
    """
    return f"{value:.2f}" if value == 0 or abs(value) >= 1 else f"{value:.3g}"
