"""What the masks of an annotation file are, all at once: their kinds, areas and extents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from itertools import chain
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from detection.data.annotations.values import FARTHEST

Array = np.ndarray[Any, Any]

_CHUNK = 20_000
_FLAT = 1e-6  # variance across a polygon, in pixels squared, below which it is a line


class MaskKind(IntEnum):
    """What the ``segmentation`` of an annotation is; the first four can be used."""

    POLYGONS = 0
    SOME_POLYGONS = 1
    """Some of its polygons cannot be used; the others are."""
    RLE = 2
    COUNTS = 3
    """Run-length encoded, not compressed."""
    NONE = 4
    """Missing, null or an empty list."""
    NO_POLYGON = 5
    """No polygon of it can be used."""
    EMPTY = 6
    """Run-length encoded, without a pixel."""
    BROKEN = 7
    """Run-length encoded, with counts that do not fill its size."""
    MALFORMED = 8
    """Anything else."""


class Fault(IntFlag):
    """What polygons have that cannot be used."""

    SHORT = 1
    """Fewer than three points."""
    ODD = 2
    """An odd number of coordinates."""
    FLAT = 4
    """All points on one line."""


@dataclass(frozen=True)
class Masks:
    """Columns over N annotations.

    Attributes:
        kind: (N) of :class:`MaskKind`.
        fault: (N) of :class:`Fault`.
        area: (N) pixels; NaN without a usable mask. Of polygons by the shoelace formula, so that
            parts that overlap count twice.
        extent: (N, 4) left, top, right and bottom in pixels; NaN without a usable mask.
        size: (N, 2) height and width that a run-length encoded mask says; NaN for others.
    """

    kind: Array
    fault: Array
    area: Array
    extent: Array
    size: Array

    @property
    def usable(self) -> Array:
        """(N) whether the annotation has a mask to train with and to score by."""
        return self.kind <= MaskKind.COUNTS

    @classmethod
    def empty(cls, count: int) -> Masks:
        """Columns of ``count`` annotations without masks."""
        return cls(
            np.full(count, MaskKind.NONE, np.int8),
            np.zeros(count, np.int8),
            np.full(count, np.nan),
            np.full((count, 4), np.nan),
            np.full((count, 2), np.nan),
        )


def mask_columns(segmentations: Sequence[Any]) -> Masks:
    """The columns of all ``segmentation`` values, as JSON has them."""
    masks = Masks.empty(len(segmentations))
    for start in range(0, len(segmentations), _CHUNK):
        _fill(masks, start, segmentations[start : start + _CHUNK])
    return masks


def usable_mask(segmentation: Any) -> Any:
    """A mask as Detectron2 and pycocotools take it.

    Args:
        segmentation: as JSON has it: polygons, or a run-length encoding, compressed or not.

    Returns:
        A list of polygons, or a compressed encoding; None where nothing can be used.
    """
    masks = mask_columns([segmentation])
    if not masks.usable[0]:
        return None
    if masks.kind[0] == MaskKind.COUNTS:
        return mask_util.frPyObjects(segmentation, *segmentation["size"])
    if masks.kind[0] == MaskKind.RLE:
        return segmentation
    polygons = _polygons(segmentation)
    return [polygon for polygon in polygons if mask_columns([[polygon]]).usable[0]]


def readable(segmentation: Any, kind: int) -> Any:
    """:func:`usable_mask` of a mask whose kind is known, which is quick for the usual kinds."""
    if kind == MaskKind.POLYGONS:
        return _polygons(segmentation)
    return segmentation if kind == MaskKind.RLE else usable_mask(segmentation)


def encoded(mask: Any, height: int, width: int) -> dict[str, Any]:
    """A mask from :func:`usable_mask` as one compressed encoding of an image's size."""
    if isinstance(mask, Mapping):
        return dict(mask)
    found: dict[str, Any] = mask_util.merge(mask_util.frPyObjects(mask, height, width))
    return found


def _polygons(segmentation: Sequence[Any]) -> list[Any]:
    """Some tools write one polygon without the list around it."""
    nested = all(isinstance(part, list | tuple | np.ndarray) for part in segmentation)
    return list(segmentation) if nested else [segmentation]


def _fill(masks: Masks, start: int, segmentations: Sequence[Any]) -> None:
    """Writes the columns of some annotations from row ``start`` on."""
    rows: list[int] = []
    polygons: list[Any] = []
    encodings: list[tuple[int, Mapping[str, Any]]] = []
    for row, segmentation in enumerate(segmentations, start):
        if isinstance(segmentation, list):
            parts = _polygons(segmentation)
            rows += [row] * len(parts)
            polygons += parts
        elif isinstance(segmentation, Mapping):
            encodings.append((row, segmentation))
        elif segmentation is not None:
            masks.kind[row] = MaskKind.MALFORMED
    if polygons:
        _fill_polygons(masks, np.asarray(rows), polygons)
    if encodings:
        _fill_encodings(masks, encodings)


def _fill_polygons(masks: Masks, rows: Array, polygons: list[Any]) -> None:
    numbers = _numbers(polygons)
    if numbers is None:  # some of them are no numbers: look at each
        bad = {row for row, part in zip(rows, polygons, strict=True) if _numbers([part]) is None}
        masks.kind[list(bad)] = MaskKind.MALFORMED
        left = [index for index, row in enumerate(rows) if row not in bad]
        if left:
            _fill_polygons(masks, rows[left], [polygons[index] for index in left])
        return
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    short, odd = lengths < 6, lengths % 2 == 1
    whole = ~short & ~odd
    fault = np.where(odd, Fault.ODD, np.where(short, Fault.SHORT, 0)).astype(np.int8)
    area, extent = np.zeros(len(polygons)), np.full((len(polygons), 4), np.nan)
    if whole.any():
        points = numbers[np.repeat(whole, lengths)].reshape(-1, 2)
        area[whole], extent[whole], flat = _figures(points, lengths[whole] // 2)
        fault[np.flatnonzero(whole)[flat]] = Fault.FLAT
    _collect(masks, rows, fault, area, extent)


def _collect(masks: Masks, rows: Array, fault: Array, area: Array, extent: Array) -> None:
    """From polygons to the annotations that they are of; ``rows`` ascend."""
    fine = fault == 0
    owners, first = np.unique(rows, return_index=True)
    some, every = (f.reduceat(fine, first) for f in (np.logical_or, np.logical_and))
    partly = np.where(some, MaskKind.SOME_POLYGONS, MaskKind.NO_POLYGON)
    masks.kind[owners] = np.where(every, MaskKind.POLYGONS, partly)
    masks.fault[owners] = np.bitwise_or.reduceat(fault, first)
    if not fine.any():
        return
    owners, first = np.unique(rows[fine], return_index=True)
    masks.area[owners] = np.add.reduceat(area[fine], first)
    masks.extent[owners, :2] = np.minimum.reduceat(extent[fine, :2], first)
    masks.extent[owners, 2:] = np.maximum.reduceat(extent[fine, 2:], first)


def _numbers(polygons: list[Any]) -> Array | None:
    """All coordinates in one row; None if one of them is no number of pixels."""
    try:
        found = np.asarray(list(chain.from_iterable(polygons)))
    except (TypeError, ValueError):
        return None
    if not found.size:
        return np.zeros(0)
    if found.ndim != 1 or found.dtype.kind not in "iuf" or any(type(p) is str for p in polygons):
        return None
    found = found.astype(np.float64)
    return found if (np.abs(found) < FARTHEST).all() else None


def _figures(points: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Areas (P), extents (P, 4) and flatness (P) of polygons of ``counts`` (P) points each."""
    ends = np.cumsum(counts)
    starts = ends - counts
    points_from = np.repeat(starts, counts)
    following = np.arange(len(points)) + 1
    following[ends - 1] = starts
    x, y = (points - points[points_from]).T  # small numbers lose less in the products
    cross = x * y[following] - x[following] * y
    low, high = (f.reduceat(points, starts) for f in (np.minimum, np.maximum))
    mean = np.add.reduceat(np.stack([x, y], 1), starts) / counts[:, None]
    dx, dy = (np.stack([x, y], 1) - np.repeat(mean, counts, 0)).T
    xx, yy, xy = (np.add.reduceat(v, starts) / counts for v in (dx * dx, dy * dy, dx * dy))
    flat = xx * yy - xy * xy <= _FLAT * (xx + yy)
    return np.abs(np.add.reduceat(cross, starts)) / 2, np.concatenate([low, high], 1), flat


def _fill_encodings(masks: Masks, encodings: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
    compressed: list[tuple[int, str]] = []
    fine: list[tuple[int, Mapping[str, Any]]] = []
    for row, encoding in encodings:
        size, counts = encoding.get("size"), encoding.get("counts")
        masks.kind[row] = MaskKind.MALFORMED
        if not _is_size(size):
            continue
        masks.size[row] = size
        if isinstance(counts, bytes):
            counts = counts.decode("latin-1")
        if isinstance(counts, str):
            compressed.append((row, counts))
            fine.append((row, encoding))
        elif isinstance(counts, list) and all(type(count) is int for count in counts):
            _judge(masks, row, MaskKind.COUNTS, counts)
            fine.append((row, encoding))
    for row, runs in zip((row for row, _ in compressed), _runs(compressed), strict=True):
        _judge(masks, row, MaskKind.RLE, runs)
    usable = [(row, code) for row, code in fine if masks.usable[row]]
    if usable:
        codes = [usable_code(code) for _, code in usable]
        boxes = np.asarray(mask_util.toBbox(codes)).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks.extent[[row for row, _ in usable]] = boxes


def usable_code(code: Mapping[str, Any]) -> Any:
    """A valid run-length encoding, compressed."""
    if isinstance(code["counts"], list):
        return mask_util.frPyObjects(code, *code["size"])
    return code


def _is_size(size: Any) -> bool:
    return (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(type(side) is int and 0 < side < 2**20 for side in size)
    )


def _judge(masks: Masks, row: int, kind: MaskKind, runs: Sequence[int] | Array) -> None:
    """The kind and area of an encoding by the lengths of its runs."""
    counts = np.asarray(runs, dtype=object if len(runs) and kind == MaskKind.COUNTS else None)
    pixels = int(masks.size[row, 0] * masks.size[row, 1])
    if not len(counts) or counts.min() < 0 or counts.sum() != pixels:
        masks.kind[row] = MaskKind.BROKEN
        return
    area = int(counts[1::2].sum())
    masks.kind[row] = kind if area else MaskKind.EMPTY
    masks.area[row] = area or np.nan


def _runs(compressed: Sequence[tuple[int, str]]) -> Iterator[Array]:
    """The runs of COCO's compressed strings, without trusting them as its own decoder does."""
    for _, text in compressed:
        yield decoded_runs(text)


def decoded_runs(text: str) -> Array:
    """The lengths of the runs of a compressed encoding, as int64; none if it is no such text."""
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    nothing = np.zeros(0, np.int64)
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return nothing
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 6:  # more than 30 bits: no image is that large
        return nothing
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)  # the sign
    runs = values.copy()
    # From the fourth on, a run is written as its difference from the last but one.
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs
