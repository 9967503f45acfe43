"""Formats of annotations other than COCO's, told by the files of a folder, for messages."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_MOST_FILES = 2000
_MOST_BYTES = 4_000_000
_NO_LABELS = ("readme", "license", "requirements", "classes")


def other_format(root: Path) -> str | None:
    """What a folder holds instead of COCO JSON, e.g. ``YOLO labels ('photos/labels/1.txt')``.

    Args:
        root: the folder; files up to three folders below it are looked at, a part of very many.

    Returns:
        None for a folder with nothing that is known.
    """
    files = list(itertools.islice(_files(root, depth=3), _MOST_FILES))
    for title, is_of in _FORMATS:
        if found := next((path for path in files if is_of(path)), None):
            return f"{title} ('{found}')"
    return None


def way_out(found: str | None) -> str:
    """What to do about :func:`other_format`, to be put behind what is said; empty for None."""
    if found is None:
        return ""
    return f"but {found}: export them as COCO JSON, as label tools can, or convert them; "


def _files(folder: Path, depth: int) -> Iterator[Path]:
    below = []
    try:
        entries: Iterable[Path] = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.name.startswith((".", "__")):
            continue
        if path.is_dir():
            below.append(path)
        elif path.suffix.lower() in (".txt", ".xml", ".csv", ".json", ".tfrecord"):
            yield path
    for path in below if depth else ():
        # A part of each, so that one folder of very many files does not hide the others.
        yield from itertools.islice(_files(path, depth - 1), _MOST_FILES // 4)


def _is_yolo(path: Path) -> bool:
    """Lines of a class's number and at least four fractions."""
    if path.suffix != ".txt" or path.stem.lower().startswith(_NO_LABELS):
        return False
    words = _beginning(path).partition("\n")[0].split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return False
    return len(numbers) >= 5 and words[0].isdigit() and all(0 <= n <= 1 for n in numbers[1:])


def _is_voc(path: Path) -> bool:
    return path.suffix.lower() == ".xml" and "<annotation" in _beginning(path)


def _is_csv(path: Path) -> bool:
    head = _beginning(path).partition("\n")[0].lower()
    return path.suffix.lower() == ".csv" and "filename" in head and "xmin" in head


def _json_with(*keys: str) -> Callable[[Path], bool]:
    def is_of(path: Path) -> bool:
        content = _decoded(path)
        first = next(iter(content.values()), None) if isinstance(content, dict) else None
        return any(isinstance(part, dict) and set(keys) <= part.keys() for part in (content, first))

    return is_of


def _decoded(path: Path) -> object:
    try:
        if path.suffix.lower() != ".json" or path.stat().st_size > _MOST_BYTES:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _beginning(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1000).decode("utf-8-sig", "replace")
    except OSError:
        return ""


_FORMATS: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    ("YOLO labels", _is_yolo),
    ("Pascal VOC XML", _is_voc),
    ("LabelMe JSON", _json_with("shapes", "imagePath")),
    ("VGG Image Annotator JSON", _json_with("filename", "regions")),
    ("a table of boxes", _is_csv),
    ("TFRecords", lambda path: path.suffix.lower() == ".tfrecord"),
)
