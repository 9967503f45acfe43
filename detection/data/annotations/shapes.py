"""Faults of masks and areas, and objects that a model cannot use as they are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from detection.data.annotations.columns import LARGE, SMALL
from detection.data.annotations.describing import finding, of_rows, present
from detection.data.annotations.file import AnnotationFile
from detection.data.annotations.masks import Array, Fault, MaskKind
from detection.data.findings import Finding

_OF_BOX = 0.95  # a mask that fills more of its box has its box's area, roughly
_OFF = 1.5  # factor between an area and that of its mask from which on it is another's
_PIXELS = 16  # below this difference of areas, rounding may be the reason
_SOME = 0.05  # share of objects from which on areas are a matter of the file


def mask_findings(file: AnnotationFile, polygons: bool) -> list[Finding]:
    """Faults of masks, for a model with a mask head.

    Args:
        file: whose columns are looked at.
        polygons: whether masks are trained as polygons (``INPUT.MASK_FORMAT``).
    """
    columns, masks = file.columns, file.columns.masks
    objects, kind = columns.objects, masks.kind
    none = objects & ~masks.usable
    broken = (kind == MaskKind.BROKEN) | (kind == MaskKind.MALFORMED)
    if objects.any() and not (masks.usable & objects).any() and not broken.any():
        return present([of_rows("mask_none_at_all", file, none, "segmentation")])
    sizes = columns.image_sizes[:, ::-1]
    rle = (kind == MaskKind.RLE) | (kind == MaskKind.COUNTS) | (kind == MaskKind.EMPTY)
    other = rle & (masks.size != sizes).any(1) & np.isfinite(sizes).all(1)
    faults = {
        "mask_short": Fault.SHORT,
        "mask_odd": Fault.ODD,
        "mask_flat": Fault.FLAT,
    }
    encoded = objects & rle if polygons else np.zeros(len(columns), bool)
    return present(
        [
            of_rows("mask_malformed", file, kind == MaskKind.MALFORMED, "segmentation"),
            of_rows("mask_broken", file, kind == MaskKind.BROKEN, "segmentation"),
            _other_size(file, other & columns.listed),
            *(
                of_rows(key, file, objects & (masks.fault & fault > 0), "segmentation")
                for key, fault in faults.items()
            ),
            of_rows("mask_empty", file, objects & (kind == MaskKind.EMPTY)),
            of_rows("mask_missing", file, none & ~broken),
            of_rows("mask_encoded", file, encoded & (kind != MaskKind.EMPTY)),
        ]
    )


def _other_size(file: AnnotationFile, rows: Array) -> Finding | None:
    found = of_rows("mask_other_size", file, rows)
    if found is None:
        return None
    row = int(np.argmax(rows))
    size = file.columns.masks.size[row].astype(int).tolist()
    image = file.columns.image_sizes[row, ::-1].astype(int).tolist()
    shown = f"{found.example} has a mask of height and width {size}, but the image has {image}"
    return finding("mask_other_size", found.count, shown)


def area_findings(file: AnnotationFile) -> list[Finding]:
    """Areas that AP by scale cannot go by, or that it had better not."""
    return present(_areas(file))


def _areas(file: AnnotationFile) -> Iterable[Finding | None]:
    columns, masks = file.columns, file.columns.masks
    area, box = columns.area, columns.box_areas
    objects = columns.objects
    yield of_rows("area_missing", file, objects & ~(area > 0) & np.isfinite(box), "area")
    given = objects & (area > 0)
    masked = given & masks.usable
    of_box = masked & (np.abs(area - box) <= 0.01 * box + 1) & (masks.area < _OF_BOX * box)
    of_box &= np.abs(area - masks.area) > _PIXELS
    if np.count_nonzero(of_box) >= _SOME * np.count_nonzero(masked):
        moved = np.count_nonzero(_scale(area[of_box]) > _scale(masks.area[of_box]))
        yield of_rows("area_of_box", file, of_box, "area", moved=moved)
    for rows, own, what in ((masked & ~of_box, masks.area, "mask"), (given & ~masked, box, "box")):
        off = rows & (np.abs(area - own) > _PIXELS) & _apart(area, own, what)
        if np.count_nonzero(off) >= _SOME * np.count_nonzero(rows):
            yield of_rows("area_other", file, off, "area", what=what)


def _apart(area: Array, own: Array, what: str) -> Array:
    """(N) whether an area is another's; that of a mask may be far smaller than its box."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = area / own
    return (ratio > _OFF) | (ratio < (1 / _OFF if what == "mask" else 0.02))


def _scale(area: Array) -> Array:
    return np.digitize(area, [SMALL, LARGE])


def crowding_findings(file: AnnotationFile, most: int) -> list[Finding]:
    """Images of a test set with more objects than a detector may answer with.

    Args:
        file: whose columns are looked at.
        most: ``TEST.DETECTIONS_PER_IMAGE``.
    """
    columns = file.columns
    counts = np.bincount(columns.image[columns.objects], minlength=len(file.images))
    over = np.flatnonzero(counts > most)
    if not len(over):
        return []
    fullest = over[np.argmax(counts[over])]
    shown = f"'{file.images[over[0]]['file_name']}' with {counts[over[0]]:,} objects"
    needed = int(counts[fullest])
    return present([finding("too_many", len(over), shown, most=most, needed=needed)])
