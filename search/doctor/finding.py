"""What is said of one thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Status"]

Status = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        status: ``broken`` is what no run can do without, ``note`` what some runs lack.
        subject: what was looked at.
        text: what was found.
        fix: a command, or a key with its value, that mends it; empty where nothing is to be mended.
    """

    status: Status
    subject: str
    text: str
    fix: str = ""
