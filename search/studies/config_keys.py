"""Tables of the keys of a configuration file, from its own comments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from tabulate import tabulate

from backbones.errors import UserError
from backbones.paths import config_path

_OWN_KEYS = ("_BASE_", "VERSION")


def keys_table(name: str) -> Callable[[], str]:
    """What makes the table of a file's keys with their values and comments.

    Args:
        name: of the file, below ``configs/``.
    """
    return lambda: _table(config_path(name))


def described_keys(path: Path) -> list[tuple[str, str, str]]:
    """Every key that a configuration file sets, with its value and the comment above it.

    Raises:
        UserError: if a key has no comment.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found = []
    for key, value, line in _leaves(yaml.compose(text, yaml.SafeLoader)):
        comment = _comment_above(lines, line)
        if not comment:
            raise UserError(f"'{path}', line {line + 1}: the key {key} has no comment above it")
        found.append((key, text[value.start_mark.index : value.end_mark.index].strip(), comment))
    return found


def _table(path: Path) -> str:
    rows = [
        (f"`{key}`", f"`{value}`" if value not in ('""', "''") else "empty", _prose(comment))
        for key, value, comment in described_keys(path)
    ]
    headers = ("key", "value", "what it is, and how to choose it")
    return str(tabulate(rows, headers, "pipe", disable_numparse=True))


def _prose(comment: str) -> str:
    """A comment in a cell, with keys set as code and the pages that it names linked."""
    comment = re.sub(r"(?<![`\w.])((?:[A-Z][A-Z_]+\.)+[A-Z_]+(?: [\d.]+\d)?)", r"`\1`", comment)
    comment = re.sub(r"docs/(\w+\.md)", r"[\1](\1)", comment)
    return comment.replace("|", "\\|")


def _leaves(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, yaml.Node, int]]:
    """Dotted keys, their values, and the lines that they are in, from 0."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value in _OWN_KEYS:
            continue
        if isinstance(value, yaml.MappingNode):
            yield from _leaves(value, f"{prefix}{key.value}.")
        else:
            yield f"{prefix}{key.value}", value, key.start_mark.line


def _comment_above(lines: list[str], line: int) -> str:
    words: list[str] = []
    while line and lines[line - 1].strip().startswith("#"):
        line -= 1
        words.insert(0, lines[line].strip().lstrip("# "))
    return " ".join(words)
