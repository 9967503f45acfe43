"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backbones.errors import UserError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary sibling of ``path`` that replaces it when the block succeeds.

    The parent folder is created. If the block raises, ``path`` keeps its old content.

    Raises:
        UserError: if the folder cannot be made or written, or ``path`` is a folder itself.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise UserError(
            f"cannot write '{target}': {error.strerror or error}; name a file in a folder that "
            "can be written"
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Writes ``data`` to ``path``, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes ``value`` as indented JSON; NaN and infinity are refused (they are not JSON)."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str], kind: str) -> Any:
    """Reads a JSON file.

    Args:
        path: the file.
        kind: what the file should be, for the error message ("architecture", "latency table").

    Raises:
        UserError: if the file does not exist, cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"no {kind} file at '{path}'; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the {kind} file '{path}': {error}") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"the {kind} file '{path}' is not valid JSON (line {error.lineno}, column "
            f"{error.colno}: {error.msg}); mend it or export it again"
        ) from None


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, by their dotted names: ``{"A": {"B": 1}}`` → ``{"A.B": 1}``."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(leaves(value, f"{prefix}.{key}" if prefix else key))
    return found


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The keys of either whose values are not the same; one that is missing counts as None."""
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]
