"""The embedded default data set: scikit-learn's handwritten digits as scenes and as images.

Layout below ``$DETECTRON2_DATASETS/digits``::

    train/*.jpg  val/*.jpg  annotations/instances_{train,val}.json     COCO, 10 classes, RLE masks
    classification/{train,val}/{0..9}/*.png                            ImageFolder, 64 x 64 pixels
    manifest.json                                                      version, settings and counts

The digits are split before anything is drawn: none of the validation split is seen in training,
in neither task. It is made at first use, in about a minute, and is the same every time.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

from backbones.errors import UserError
from backbones.files import read_json
from detection.data.digits_writer import (
    CLASSES,
    SCALES,
    SPLITS,
    load_pools,
    write_digit_images,
    write_scenes,
)
from detection.data.scenes import DigitImageConfig, SceneConfig

VERSION = 1  # raise it whenever the same settings give other images

_MANIFEST = "manifest.json"
_OWN = {*SPLITS, "annotations", "classification", _MANIFEST}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DigitsSize:
    """How many images are made.

    Attributes:
        scenes_train: detection scenes.
        scenes_val: detection scenes.
        images_train: classification images; four drawings of every training digit.
        images_val: classification images; eight drawings of every validation digit, since accuracy
            on a thousand images is known to a whole point only.
    """

    scenes_train: int = 1200
    scenes_val: int = 200
    images_train: int = 4 * 1297
    images_val: int = 8 * 500


def digits_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Where the data set is: ``root / "digits"``.

    Args:
        root: folder of the data sets; None for ``$DETECTRON2_DATASETS`` or, without it,
            ``datasets`` in the working directory.
    """
    base = os.environ.get("DETECTRON2_DATASETS") or "datasets" if root is None else root
    return Path(base).expanduser().absolute() / "digits"


def prepare_digits(
    root: str | os.PathLike[str] | None = None,
    size: DigitsSize | None = None,
    scene: SceneConfig | None = None,
    digit_image: DigitImageConfig | None = None,
    force: bool = False,
) -> Path:
    """Makes the data set unless it is there.

    It is made in a temporary folder beside its place and moved there when it is complete. A
    second process waits for the first one and then uses its result.

    Args:
        root: as for `digits_root`.
        size: how many images; None accepts a data set of any size and makes one of full size.
        scene: difficulty of the scenes; None for the defaults.
        digit_image: difficulty of the classification images; None for the defaults.
        force: makes it anew even if it is there.

    Returns:
        The folder of the data set.

    Raises:
        UserError: if the folder cannot be written, or holds files that are not of this data set.
    """
    settings = _settings(scene or SceneConfig(), digit_image or DigitImageConfig())
    target = digits_root(root)
    if not force and _is_complete(target, size, settings):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.parent / ".digits.lock"):
            if force or not _is_complete(target, size, settings):
                _check_replaceable(target)
                with _replacing(target) as folder:
                    _build(folder, size or DigitsSize(), scene, digit_image, settings)
    except OSError as error:
        raise UserError(
            f"cannot make the digits data set in '{target}': {error}; set DETECTRON2_DATASETS to "
            "a folder that can be written"
        ) from error
    return target


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the data set in ``folder``, or None if there is no readable one."""
    try:
        manifest = read_json(folder / _MANIFEST, "manifest")
    except UserError:
        return None
    return manifest if isinstance(manifest, dict) else None


def summary_table(manifest: dict[str, Any]) -> str:
    """Images, instances of each scale and of each class as a text table."""
    rows = [["", "images", *SCALES, *(f"'{name}'" for name in CLASSES)]]
    for split in SPLITS:
        counts = manifest["counts"]["scenes"][split]
        values = [counts["instances"][scale] for scale in SCALES]
        shares = [f"{v} ({v / max(1, sum(values)):.0%})" for v in values]
        per_class = [str(counts["classes"][name]) for name in CLASSES]
        rows.append([f"scenes {split}", str(counts["images"]), *shares, *per_class])
    for split in SPLITS:
        counts = manifest["counts"]["classification"][split]
        per_class = [str(counts["classes"][name]) for name in CLASSES]
        rows.append([f"classification {split}", str(counts["images"]), "", "", "", *per_class])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _settings(scene: SceneConfig, digit_image: DigitImageConfig) -> dict[str, Any]:
    """Everything besides the size that decides what is drawn, as JSON gives it back."""
    settings = {"version": VERSION, "scene": asdict(scene), "digit_image": asdict(digit_image)}
    return dict(json.loads(json.dumps(settings)))


def _is_complete(folder: Path, size: DigitsSize | None, settings: dict[str, Any]) -> bool:
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("settings") != settings:
        return False
    made = manifest["size"]
    if size is not None and made != asdict(size):
        return False
    present = {f"scenes_{s}": _count(folder / s, "*.jpg") for s in SPLITS}
    present |= {f"images_{s}": _count(folder / "classification" / s, "*/*.png") for s in SPLITS}
    annotations = [folder / "annotations" / f"instances_{s}.json" for s in SPLITS]
    return present == made and all(path.is_file() for path in annotations)


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern))


def _check_replaceable(target: Path) -> None:
    """Refuses to replace a folder in which somebody keeps something else."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(
            f"'{target}' is a file, but the digits data set belongs there; move it away or set "
            "DETECTRON2_DATASETS to another folder"
        )
    foreign = sorted(p.name for p in target.iterdir() if p.name not in _OWN)
    if foreign:
        raise UserError(
            f"'{target}' has to be replaced by a new digits data set, but it holds '{foreign[0]}', "
            "which is not part of one; move that away or set DETECTRON2_DATASETS to another folder"
        )


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yields an empty sibling folder that takes the place of ``target`` if the block succeeds.

    The caller holds the lock, so what lies at the temporary places was left by a killed process.
    """
    fresh, old = target.with_name(".digits.new"), target.with_name(".digits.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _build(
    folder: Path,
    size: DigitsSize,
    scene: SceneConfig | None,
    digit_image: DigitImageConfig | None,
    settings: dict[str, Any],
) -> None:
    _log.info("Making the digits data set in '%s'; this takes about a minute, once", folder.parent)
    pools = load_pools()
    sizes = asdict(size)
    counts: dict[str, dict[str, Any]] = {"scenes": {}, "classification": {}}
    for split in SPLITS:
        counts["scenes"][split] = write_scenes(
            folder, split, pools[split], sizes[f"scenes_{split}"], scene or SceneConfig()
        )
        counts["classification"][split] = write_digit_images(
            folder,
            split,
            pools[split],
            sizes[f"images_{split}"],
            digit_image or DigitImageConfig(),
        )
    manifest = {
        "settings": settings,
        "size": sizes,
        "counts": counts,
        "digits": {split: len(pools[split].digits) for split in SPLITS},
        "libraries": {
            name: importlib.metadata.version(name) for name in ("scikit-learn", "numpy", "pillow")
        },
    }
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
