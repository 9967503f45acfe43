"""Files that are written whole or not at all, and JSON that is read as plain data."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.file_lock import hold

_MAX_DEPTH = 100
_MAX_DIGITS = 20
_MAX_NAME = 200

_OF_DISKS = frozenset(
    {errno.ENOSPC, errno.EFBIG, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}
)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary sibling of ``path`` that replaces it when the block succeeds.

    The parent folder is created. If the block raises, ``path`` keeps its old content. What a
    process that was killed left of the same file is removed.

    Raises:
        UserError: if the folder cannot be made or written, ``path`` is a folder itself, or the
            disk is full or fails.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        handle, name = _locked_sibling(target)
    except OSError as error:
        raise UserError(
            f"cannot write '{target}': {error.strerror or error}; name a file in a folder that "
            "can be written"
        ) from None
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        if is_of_disk(error):
            raise cannot_write(target, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def cannot_write(path: str | os.PathLike[str], error: Exception) -> UserError:
    """What is to be said of a file that could not be written to its end.

    Args:
        path: of the file, or of its folder.
        error: of the system; or of PyTorch's writer, which does not hand on what the system said.
    """
    reason = getattr(error, "strerror", None) or "its writer has failed"
    folder = next((place for place in Path(path).absolute().parents if place.is_dir()), Path("/"))
    room = shutil.disk_usage(folder).free / 1e6
    return UserError(
        f"cannot write '{path}' ({reason}; its disk has {room:.0f} MB left): make room, and repeat "
        "the command, with --resume where it is a run"
    )


def is_of_disk(error: BaseException | None) -> bool:
    """Whether an error says that a disk, or a user's share of it, is full, or that it fails."""
    return isinstance(error, OSError) and error.errno in _OF_DISKS


def _locked_sibling(target: Path) -> tuple[int | None, str]:
    """A new file ``.NAME.….tmp``, locked as long as the process lives; its handle and its name.

    Windows cannot replace a file with one that is open: there it has neither handle nor lock.
    """
    while True:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        if os.name == "nt":
            os.close(handle)
            return None, name
        hold(handle, wait=True)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another process found it before it was locked


def _remove_abandoned(target: Path) -> None:
    """Removes the files of :func:`_locked_sibling` whose processes were killed."""
    for entry in os.scandir(target.parent):
        if entry.name.startswith(f".{target.name}.") and entry.name.endswith(".tmp"):
            with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                if hold(file.fileno()):
                    os.unlink(entry.path)


def write_atomic(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Writes ``data`` to ``path``, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes ``value`` as indented JSON; NaN and infinity are refused (they are not JSON)."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str], kind: str) -> Any:
    """Reads a JSON file in UTF-8, with or without a byte-order mark.

    Args:
        path: the file.
        kind: what the file should be, for the error message ("architecture", "latency table").

    Raises:
        UserError: if the file does not exist, cannot be read, is not JSON (NaN and infinity are
            not), or holds integers of more than 20 digits or more than 100 levels of nesting.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        value = json.loads(text, parse_int=_integer, parse_constant=_refuse_constant)
        _check_depth(value)
    except FileNotFoundError:
        raise UserError(f"no {kind} file at '{path}'; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the {kind} file '{path}': {error}") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"the {kind} file '{path}' is not valid JSON (line {error.lineno}, column "
            f"{error.colno}: {error.msg}); mend it or export it again"
        ) from None
    except RecursionError:
        raise UserError(
            f"the {kind} file '{path}' is nested too deeply; expected at most {_MAX_DEPTH} levels"
        ) from None
    except ValueError as error:
        raise UserError(
            f"the {kind} file '{path}' is not valid JSON ({error}); mend it or export it again"
        ) from None
    return value


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"the number {digits[:_MAX_DIGITS]}… has {len(digits)} digits")
    return int(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    if level:
        raise RecursionError


def safe_name(name: str, what: str) -> str:
    """A name that becomes the name of a file or a folder, and so must not lead out of its folder.

    Args:
        name: as a user, or a file, gives it.
        what: is called so, for the error message ("the row", "the network").

    Returns:
        ``name``.

    Raises:
        UserError: if it is empty, too long, ``.`` or ``..``, or has a separator or a control
            character.
    """
    separators = any(mark in name for mark in "/\\") or not name.isprintable()
    if separators or name in ("", ".", "..") or len(name.encode()) > _MAX_NAME:
        raise UserError(
            f"{what} is called {name[:_MAX_NAME]!r}, which cannot name a file; expected at most "
            f"{_MAX_NAME} characters without / and \\, and neither '.' nor '..'"
        )
    return name


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, by their dotted names: ``{"A": {"B": 1}}`` → ``{"A.B": 1}``."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(leaves(value, f"{prefix}.{key}" if prefix else str(key)))
    return found


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The keys of either whose values are not the same; one that is missing counts as None."""
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]
