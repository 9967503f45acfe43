"""Faults of boxes: other forms than left, top, width and height, and other places than an image."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from detection.data.annotations.columns import BoxKind, Columns
from detection.data.annotations.describing import of_rows, present
from detection.data.annotations.file import AnnotationFile
from detection.data.annotations.masks import Array
from detection.data.findings import Finding

_SEVERAL = 6  # boxes from which a pattern is worth a word
_MANY = 20  # boxes from which it is no chance
_ALL = 0.99  # share of boxes that a pattern has to hold for
_SOME = 0.1  # share that has to be impossible as it is written


def box_findings(file: AnnotationFile) -> list[Finding]:
    """Faults of the boxes of an annotation file."""
    columns = file.columns
    kind, boxes = columns.box_kind, columns.boxes
    known = (kind == BoxKind.FOUR) & columns.listed & (columns.image_sizes > 0).all(1)
    # A file says nothing of angles; a data set registered by a function does.
    malformed = (kind == BoxKind.MALFORMED) | ((kind == BoxKind.ROTATED) & file.written)
    negative = known & ((boxes[:, 2] < 0) | (boxes[:, 3] < 0))
    empty = known & ~negative & ((boxes[:, 2] == 0) | (boxes[:, 3] == 0))
    whole = known & ~negative & ~empty
    normalised = whole & (boxes.max(1, initial=-np.inf) <= 1) & (boxes.min(1, initial=0) >= 0)
    # Single objects may be that small; a tenth of a data set is not.
    if np.count_nonzero(normalised) < _SOME * np.count_nonzero(whole):
        normalised[:] = False
    whole &= ~normalised
    corners, centre, sure = _forms(columns, whole)
    whole &= ~corners & ~centre
    outside, beyond = _places(columns, whole)
    rows = {
        "box_missing": kind == BoxKind.MISSING,
        "box_malformed": malformed,
        "box_corners": corners,
        "box_centre": centre,
        "box_normalised": normalised,
        "box_negative": negative,
        "box_empty": empty,
        "box_outside": outside,
        "box_beyond": beyond,
        "box_percent": _percentages(columns, whole),
        "mask_off_box": _off_box(columns, whole & ~outside),
    }
    return present(_said(file, rows, () if sure else ("box_corners", "box_centre")))


def _said(
    file: AnnotationFile, rows: dict[str, Array], doubtful: Collection[str]
) -> Iterable[Finding | None]:
    for key, where in rows.items():
        shows = None if key == "box_missing" else "bbox"
        yield of_rows(key, file, where, shows, doubtful=key in doubtful)


def _forms(columns: Columns, whole: Array) -> tuple[Array, Array, bool]:
    """(N), (N) which boxes are corners, and which are around a centre; whether that is sure.

    Masks say of each box what it is. Without them the whole data set has to: all boxes lie in
    their images when read otherwise, and many do not as they are written.
    """
    boxes = columns.boxes
    readings = [
        np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1),
        np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], 1),
    ]
    found = [_fits_mask_better(columns, whole, reading) for reading in readings]
    bare = whole & ~columns.masks.usable
    count = np.count_nonzero(bare)
    if count < _SEVERAL:
        return found[0], found[1] & ~found[0], True
    impossible = np.count_nonzero(_places(columns, bare)[1]) >= _SOME * count
    for position, reading in enumerate(readings):
        fits = _inside(columns, reading) & (reading[:, 2:] > 0).all(1)
        if fits[bare].mean() < _ALL:
            continue
        if impossible or (position == 0 and _rise_together(columns, bare)):
            found[position] |= bare & fits
            return found[0], found[1] & ~found[0], bool(impossible and count >= _MANY)
    return found[0], found[1] & ~found[0], True


def _rise_together(columns: Columns, rows: Array) -> bool:
    """Whether widths grow with their left side and heights with their top, as corners do."""
    if np.count_nonzero(rows) < _MANY:
        return False
    share = columns.boxes[rows] / np.tile(columns.image_sizes[rows], 2)
    if (share.std(0) == 0).any():
        return False
    found = np.corrcoef(share.T)
    return bool(min(found[0, 2], found[1, 3]) > 0.5)


def _fits_mask_better(columns: Columns, whole: Array, other: Array) -> Array:
    """(N) where the mask belongs to the box as read otherwise, and not as it is written."""
    masked = whole & columns.masks.usable
    better = _overlap(other, columns.masks.extent) > 0.8
    found: Array = masked & better & (_overlap(columns.boxes, columns.masks.extent) < 0.5)
    return found


def _off_box(columns: Columns, whole: Array) -> Array:
    masked = whole & columns.masks.usable & ~columns.crowd
    found: Array = masked & (_overlap(columns.boxes, columns.masks.extent, 1.0) < 0.5)
    return found


def _overlap(boxes: Array, extent: Array, slack: float = 0.0) -> Array:
    """(N) intersection over union of boxes and extents, each larger by ``slack`` on all sides."""
    low, high = boxes[:, :2] - slack, boxes[:, :2] + boxes[:, 2:] + slack
    other_low, other_high = extent[:, :2] - slack, extent[:, 2:] + slack
    sides = np.minimum(high, other_high) - np.maximum(low, other_low)
    common = np.clip(sides, 0, None).prod(1)
    union = (high - low).prod(1) + (other_high - other_low).prod(1) - common
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = common / union
    return found


def _inside(columns: Columns, boxes: Array) -> Array:
    """(N) whether boxes end within their image, but for a little."""
    slack = np.maximum(1, columns.image_sizes * 0.01)
    high = boxes[:, :2] + boxes[:, 2:]
    inside: Array = (boxes[:, :2] >= -slack) & (high <= columns.image_sizes + slack)
    found: Array = np.all(inside, axis=1)
    return found


def _places(columns: Columns, whole: Array) -> tuple[Array, Array]:
    """(N), (N) which boxes are wholly outside, and which reach beyond."""
    boxes, sizes = columns.boxes, columns.image_sizes
    off: Array = (boxes[:, :2] >= sizes) | (boxes[:, :2] + boxes[:, 2:] <= 0)
    outside = whole & off.any(1)
    return outside, whole & ~outside & ~_inside(columns, boxes)


def _percentages(columns: Columns, whole: Array) -> Array:
    """(N) all or none: whether boxes of large images all end at 100, and some of them near it."""
    large = whole & (columns.image_sizes > 200).all(1)
    nothing = np.zeros(len(columns), bool)
    if np.count_nonzero(large) < _MANY or large.sum() < whole.sum():
        return nothing
    ends = (columns.boxes[:, :2] + columns.boxes[:, 2:])[large]
    return large if 90 < ends.max() <= 101 and (ends.max(0) > 75).all() else nothing
