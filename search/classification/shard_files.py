"""Which tar files hold the training and the validation images."""

from __future__ import annotations

import glob
from pathlib import Path

from webdataset.shardlists import expand_urls

from backbones.errors import UserError, first_of
from detection.data.hidden import is_hidden
from detection.data.layouts import split_of

_SIGNS = ("::", "{", "*", "?", "[")
"""Of a pattern; the first stands between patterns, as for webdataset."""


def is_pattern(dataset: str) -> bool:
    """Whether a data set is named by a pattern of tar files, and not by a folder."""
    if Path(dataset).expanduser().is_dir():  # whatever letters are in its name
        return False
    return dataset.endswith(".tar") or any(sign in dataset for sign in _SIGNS)


def has_shards(root: Path) -> bool:
    """Whether a folder has tar files where a folder of images has folders of classes."""
    train = root / "train"
    if not train.is_dir():
        return bool(_visible(root))
    folders = (path for path in train.iterdir() if path.is_dir() and not is_hidden(path.name))
    return bool(_visible(train)) and not any(folders)


def find_shards(dataset: str, root: Path) -> dict[str, list[Path]]:
    """The tar files of every split, in order.

    A file belongs to a split whose name (train, training; val, valid, validation) is a word of its
    own name, or else of its folder's.

    Args:
        dataset: a pattern, or the name of a folder.
        root: that folder.

    Returns:
        Lists at ``train`` and ``val``.

    Raises:
        UserError: if a file of the pattern is not there, or a split has none.
    """
    if is_pattern(dataset):
        paths = _expanded(dataset)
    else:
        places = (root, *sorted(path for path in root.iterdir() if path.is_dir()))
        paths = [path for place in places for path in _visible(place)]
    found: dict[str, list[Path]] = {"train": [], "val": []}
    for path in paths:
        base = root if path.is_relative_to(root) else Path(path.anchor)
        if (split := split_of(path, base)) in found:
            found[split].append(path)
    for split, files in found.items():
        if not files:
            names = first_of([path.name for path in paths]) or "none"
            raise UserError(
                f"CLASSIFICATION.DATASET '{dataset}' has no tar file of its {split} split (found: "
                f"{names}); expected '{split}' as a word of their names or of their folder's, such "
                f"as photos-{split}-000000.tar, or name both: "
                "'photos-train-{000000..000146}.tar::photos-val-{000000..000006}.tar'"
            )
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.tar") if not is_hidden(path.name))


def _expanded(pattern: str) -> list[Path]:
    """The files of braces (``{000..146}``), ``*`` and ``?``, and of several with ``::`` between."""
    try:
        names = expand_urls(pattern)
    except (AssertionError, ValueError) as error:
        raise UserError(
            f"CLASSIFICATION.DATASET '{pattern}' is no pattern of tar files ({error}); expected "
            "such as 'photos-train-{000000..000146}.tar::photos-val-{000000..000006}.tar'"
        ) from None
    paths = []
    for name in names:
        path = Path(name).expanduser()
        found = [path] if path.is_file() else [Path(item) for item in sorted(glob.glob(str(path)))]
        if not found:
            raise UserError(
                f"CLASSIFICATION.DATASET '{pattern}': no file '{path}'; check the path and the "
                "numbers, and quote the pattern for the shell"
            )
        paths += found
    return paths
