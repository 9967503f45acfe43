"""Where every image lies in tar files, so that they are read in any order as files are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
from iopath.common.file_io import get_cache_dir
from torchvision.datasets.folder import IMG_EXTENSIONS
from webdataset.tariterators import base_plus_ext

from backbones.errors import UserError, first_of
from backbones.files import atomic_path
from detection.data.hidden import is_hidden

Array = np.ndarray[Any, Any]

CLASS = "cls"
"""Suffix of the number of a class, as webdataset and timm write it."""

_END = bytes(tarfile.BLOCKSIZE)
_SAY_SECONDS = 10.0
_THREADS = 8  # most of them wait where files come by network
_log = logging.getLogger(__name__)


class ShardIndex(NamedTuple):
    """The N images of a list of tar files, by class and then by name.

    Attributes:
        names: (N,) in their tar file, UTF-8.
        shards: (N,) positions in the list.
        offsets: (N,) first bytes.
        sizes: (N,) bytes.
        labels: (N,) numbers of classes, from 0.
    """

    names: Array
    shards: Array
    offsets: Array
    sizes: Array
    labels: Array


def index_shards(paths: Sequence[Path]) -> ShardIndex:
    """The index of tar files, made at first use and kept in iopath's cache folder.

    Args:
        paths: in an order that counts: the index has their positions.

    Raises:
        UserError: if a file is cut, compressed or no tar file, or an image has no class.
    """
    facts = [[str(path.absolute()), *_stamp(path)] for path in paths]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return _loaded(tuple(paths), Path(get_cache_dir(None)) / "shards" / f"{digest}.npz")


@lru_cache(maxsize=8)
def _loaded(paths: tuple[Path, ...], file: Path) -> ShardIndex:
    with contextlib.ExitStack() as held:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # the other processes of a run wait for it
            held.enter_context(filelock.FileLock(f"{file}.lock"))
        except OSError as error:
            _warn_of_cache(file, error)
            return _made(paths)
        if (kept := _kept(file)) is not None:
            return kept
        index = _made(paths)
        try:
            with atomic_path(file) as temporary, open(temporary, "wb") as opened:
                np.savez(opened, **index._asdict())
        except (UserError, OSError) as error:
            _warn_of_cache(file, error)
        return index


def _kept(file: Path) -> ShardIndex | None:
    """What an earlier run left; None where there is nothing, or nothing whole."""
    try:
        with np.load(file, allow_pickle=False) as saved:
            return ShardIndex(*(saved[name] for name in ShardIndex._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _warn_of_cache(file: Path, error: Exception) -> None:
    _log.warning(
        "the contents of tar files cannot be kept in '%s' (%s), so that every process lists them "
        "anew; set FVCORE_CACHE to a folder that can be written",
        file.parent,
        getattr(error, "strerror", None) or error,
    )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"cannot read the tar file '{path}' ({error.strerror or error})") from None
    return status.st_size, status.st_mtime_ns


def _made(paths: Sequence[Path]) -> ShardIndex:
    said = time.perf_counter()
    rows: list[tuple[bytes, int, int, int, int]] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for number, found in enumerate(pool.map(_scanned, paths)):
            rows += ((name, number, start, size, k) for name, start, size, k in found)
            if time.perf_counter() - said > _SAY_SECONDS:
                said = time.perf_counter()
                _log.info("the contents of %d of %d tar files are read", number + 1, len(paths))
    if not rows:
        raise UserError(f"no images in {len(paths)} tar files, such as '{paths[0]}'")
    names, *columns = zip(*rows, strict=True)
    shards, offsets, sizes, labels = (np.array(column, dtype=np.int64) for column in columns)
    order = np.lexsort((np.array(names), labels))
    index = ShardIndex(np.array(names), shards.astype(np.int32), offsets, sizes, labels)
    return ShardIndex(*(column[order] for column in index))


def _scanned(path: Path) -> list[tuple[bytes, int, int, int]]:
    """Name, first byte, size and class of every image of a tar file."""
    images: dict[str, tuple[str, int, int]] = {}
    classes: dict[str, int] = {}
    suffixes: Counter[str] = Counter()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile() or any(map(is_hidden, member.name.split("/"))):
                    continue
                key, suffix = base_plus_ext(member.name)
                suffixes[suffix := (suffix or "").lower()] += 1
                if suffix == CLASS:
                    classes[key] = _class_of(path, member.name, tar.extractfile(member))
                elif f".{suffix}" in IMG_EXTENSIONS:
                    if key in images:
                        raise UserError(
                            f"the tar file '{path}' has two images of one sample, "
                            f"'{images[key][0]}' and '{member.name}'; expected one"
                        )
                    images[key] = member.name, member.offset_data, member.size
            _check_end(path, tar)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f"cannot read the tar file '{path}' ({error}); it is cut, compressed or no tar file: "
            "copy it again, or unpack .gz"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the tar file '{path}' ({error.strerror or error})") from None
    if nameless := [name for key, (name, *_) in images.items() if key not in classes]:
        raise UserError(
            f"the tar file '{path}' has {len(nameless)} images without a class, such as "
            f"'{nameless[0]}'; expected a number from 0 in a file of the same name with .{CLASS}"
        )
    if not images:
        found = first_of([f"{n} × .{s}" for s, n in suffixes.most_common()]) or "nothing"
        raise UserError(
            f"the tar file '{path}' has no images, but {found}; expected samples of an image "
            f"({', '.join(IMG_EXTENSIONS)}) and a .{CLASS}, or unpack it and name the folder"
        )
    return [
        (name.encode(), start, size, classes[key]) for key, (name, start, size) in images.items()
    ]


def _class_of(path: Path, name: str, file: Any) -> int:
    text = file.read(32).strip()
    if not text.isdigit():
        raise UserError(
            f"the tar file '{path}' has {text!r} in '{name}'; expected the number of a class"
        )
    return int(text)


def _check_end(path: Path, tar: tarfile.TarFile) -> None:
    """A file that is cut between two members looks like a shorter one, but for its end."""
    last = tar.getmembers()[-1:]
    end = last[0].offset_data + -(-last[0].size // len(_END)) * len(_END) if last else 0
    with open(path, "rb") as file:
        file.seek(end)
        if file.read(len(_END)) != _END:
            raise UserError(
                f"the tar file '{path}' has no end: it is cut behind {os.path.basename(path)}'s "
                f"byte {end}; copy it again"
            )
