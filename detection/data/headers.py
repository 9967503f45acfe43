"""What is asked of a COCO annotation file before it is loaded: classes, images and their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from detection.data.annotations.file import broken, checked, decoded
from detection.data.annotations.ids import id_order
from detection.data.annotations.values import is_crowd

_SAMPLES = 20


@dataclass(frozen=True)
class Header:
    """An annotation file in short.

    Attributes:
        classes: as the file names them, in the order of their ids.
        images: how many it lists.
        with_objects: how many of them have an object that is no crowd.
        files: ``file_name`` of up to 20 images, from all over the list.
    """

    classes: tuple[str, ...]
    images: int
    with_objects: int
    files: tuple[str, ...]


def read_header(path: Path) -> Header:
    """The header of an annotation file; read once as long as the file stays as it is.

    Raises:
        UserError: if there is no such file, or it is no COCO JSON.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(
            f"cannot read the annotation file '{path}' ({error.strerror}); check the path"
        ) from None
    return _read(path.resolve(), str(path), status.st_mtime_ns, status.st_size)


def is_coco(path: Path) -> bool:
    """Whether a file has images, objects and classes in COCO's format."""
    try:
        read_header(path)
    except UserError:
        return False
    return True


@lru_cache(maxsize=64)
def _read(path: Path, shown: str, changed: int, size: int) -> Header:
    content = checked(decoded(str(path), shown), shown, ("images", "categories", "annotations"))
    try:
        return _header(content)
    except TypeError as error:  # ids that cannot be keys, or not be ordered
        raise broken(shown, str(error)) from None


def _header(content: Mapping[str, Any]) -> Header:
    images = content["images"]
    names = {item["id"]: item["name"] for item in content["categories"]}
    listed = {image["id"] for image in images}
    seen = {item["image_id"] for item in content["annotations"] if not is_crowd(item)}
    step = max(1, len(images) // _SAMPLES)
    return Header(
        classes=tuple(str(names[key]) for key in sorted(names, key=id_order)),
        images=len(images),
        with_objects=len(listed & seen),
        files=tuple(str(image["file_name"]) for image in images[::step][:_SAMPLES]),
    )
