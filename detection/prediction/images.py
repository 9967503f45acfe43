"""Photos by path, folder or pattern, and those among them that cannot be read."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import is_image_file

from backbones.errors import UserError
from detection.data.hidden import is_hidden
from detection.data.image_files import read_image
from detection.engine.unreadable import UnreadableImageError


def find_images(names: Sequence[str]) -> list[Path]:
    """Image files in the order of their names' order; of a folder, all below it by name.

    Args:
        names: files, folders, or patterns such as ``photos/*.jpg``. A file that is named may end in
            anything, of folders and patterns those that end as images do are taken, and hidden
            ones are not.

    Raises:
        UserError: if a name stands for no image.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name).expanduser()
        if path.is_file():
            found[path] = None
            continue
        if path.is_dir():
            inside = _below(path)
            if not inside:
                raise UserError(
                    f"the folder '{name}' has no images; expected files that end in .jpg, .png, … "
                    "in it or in folders below it"
                )
        elif glob.has_magic(name):
            inside = _matching(path)
            if not inside:
                raise UserError(f"no image is like '{name}'; check the pattern")
        else:
            raise UserError(f"no image or folder '{name}'; check the path")
        found.update(dict.fromkeys(inside))
    return list(found)


def _below(folder: Path) -> list[Path]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [Path(root, name) for name in sorted(files) if _is_photo(name)]
    return found


def _matching(pattern: Path) -> list[Path]:
    named = [glob.has_magic(part) for part in pattern.parts].index(True)
    found = map(Path, sorted(glob.glob(str(pattern), recursive=True)))
    return [
        path
        for path in found
        if is_image_file(path.name) and not any(map(is_hidden, path.parts[named:]))
    ]


def _is_photo(name: str) -> bool:
    return is_image_file(name) and not is_hidden(name)


def readable(
    paths: Sequence[Path], unreadable: Callable[[UnreadableImageError], None]
) -> Iterator[tuple[Path, np.ndarray]]:
    """Images as all stages read them: (H, W, 3) uint8, RGB, upright.

    Args:
        paths: of the files.
        unreadable: is told of every one that cannot be read, and that is left out.
    """
    for path in paths:
        try:
            image = read_image(str(path))
        except UnreadableImageError as error:
            unreadable(error)
            continue
        yield path, image
