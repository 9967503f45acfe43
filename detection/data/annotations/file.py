"""An annotation file in COCO's format, read once for all that look at it."""

from __future__ import annotations

import contextlib
import gc
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from detectron2.utils.file_io import PathManager

from backbones.errors import UserError
from detection.data.annotations.columns import Columns

_NEEDED = {
    "images": ("id", "file_name"),
    "categories": ("id", "name"),
    "annotations": ("image_id", "category_id"),
}


@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """The lists of an annotation file, and its objects in columns.

    Attributes:
        path: of the file, or a data set's name where there is none, for messages.
        content: the decoded JSON, with lists of objects that have the keys that all else rests on.
        written: False for a data set that has no file.
    """

    path: str
    content: Mapping[str, Any] = field(repr=False)
    written: bool = True

    @property
    def images(self) -> Sequence[dict[str, Any]]:
        """With ``id`` and ``file_name``."""
        return self.content["images"]

    @property
    def categories(self) -> Sequence[dict[str, Any]]:
        """With ``id`` and ``name``."""
        return self.content["categories"]

    @property
    def annotations(self) -> Sequence[dict[str, Any]]:
        """With ``image_id`` and ``category_id``; none in a file of images alone."""
        return self.content.get("annotations", ())

    @cached_property
    def columns(self) -> Columns:
        """Images, classes, boxes, masks and areas of all annotations."""
        return Columns.of(self.images, self.categories, self.annotations)


_shared: dict[tuple[str, int, int], AnnotationFile] | None = None


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """While this is open, a file is read once however often it is asked for, and kept."""
    global _shared
    before = _shared
    _shared = {} if before is None else before
    try:
        yield
    finally:
        _shared = before


def read_annotations(path: str | os.PathLike[str]) -> AnnotationFile:
    """Reads an annotation file in UTF-8, with or without a byte-order mark.

    Unlike other JSON, NaN is read: it is found where it matters.

    Args:
        path: of the file; anything that Detectron2's ``PathManager`` can fetch.

    Raises:
        UserError: if the file cannot be read, or is no annotation file in COCO's format.
        FileNotFoundError: if there is none.
    """
    local = PathManager.get_local_path(os.fspath(path))
    status = os.stat(local)
    key = (os.path.abspath(local), status.st_mtime_ns, status.st_size)
    if _shared is not None and key in _shared:
        return _shared[key]
    found = AnnotationFile(
        os.fspath(path), checked(decoded(local, os.fspath(path)), os.fspath(path))
    )
    if _shared is not None:
        _shared[key] = found
    return found


def decoded(path: str, shown: str) -> Any:
    """The JSON of a file in UTF-8, with or without a byte-order mark.

    Raises:
        UserError: with ``shown`` as the name of the file, if it is no JSON or cannot be read.
        FileNotFoundError: if there is none.
    """
    if not os.path.getsize(path):
        raise broken(shown, "it is empty")
    collecting = gc.isenabled()
    gc.disable()  # millions of new lists, none of them garbage
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file)
    except UnicodeDecodeError as error:
        reason = f"UnicodeDecodeError: {error.reason} at byte {error.start}; expected UTF-8"
        raise broken(shown, reason) from None
    except (ValueError, RecursionError) as error:
        raise broken(shown, f"{type(error).__name__}: {str(error).splitlines()[0]}") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot read the annotation file '{shown}': {error}") from None
    finally:
        if collecting:
            gc.enable()


def checked(
    content: Any, path: str, parts: Sequence[str] = ("images", "categories")
) -> Mapping[str, Any]:
    """Insists on the keys that everything else rests on.

    Args:
        content: the decoded JSON.
        path: of the file, for the message.
        parts: the lists that have to be there.

    Raises:
        UserError: naming the first that is missing or of another type.
    """
    if not isinstance(content, dict):
        raise broken(path, f"it holds a {type(content).__name__}, not images and categories")
    name_by_address(content.get("images"))
    for part, keys in _NEEDED.items():
        listed = content.get(part, None if part in parts else [])
        if not isinstance(listed, list):
            raise broken(path, f"it has no list of {part}")
        for position, item in enumerate(listed):
            if not isinstance(item, dict):
                raise broken(path, f"{part}[{position}] is no object")
            for key in keys:
                if key not in item:
                    raise broken(path, f"{part}[{position}] has no '{key}'")
    for position, image in enumerate(content["images"]):
        if not isinstance(image["file_name"], str):
            raise broken(path, f"the file_name of images[{position}] is no text")
    return content


def name_by_address(images: Any) -> None:
    """LVIS names images by their address at COCO's; its file is named as Detectron2 does."""
    for image in images if isinstance(images, list) else ():
        unnamed = isinstance(image, dict) and "file_name" not in image
        if unnamed and isinstance(address := image.get("coco_url"), str):
            image["file_name"] = "/".join(address.split("/")[-2:])


def broken(path: str, reason: str) -> UserError:
    """The error for a file that is not in COCO's format."""
    return UserError(
        f"the annotation file '{path}' is not valid COCO JSON ({reason}); mend it or export it "
        "again"
    )
