"""Figures keep their digits, whatever the unit."""

from __future__ import annotations

import pytest

from backbones.figures import shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (79.494, "79.49"),
        (1.0, "1.00"),
        (0.012345, "0.0123"),
        (-0.5, "-0.5"),
        (8.7e-6, "8.7e-06"),
        (0.0, "0.00"),
    ],
)
def test_two_decimals_or_three_digits(value: float, text: str) -> None:
    assert shown(value) == text
