"""What the tables of all studies share, as GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are text already."""
    return str(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


def beside(study: Mapping[str, Any]) -> str:
    """The command and the machine that a study's figures are from."""
    return f"`{study['command']}`; {study['hardware']}."
