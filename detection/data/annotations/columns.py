"""Annotations in columns: one array for each fact, so that a million are looked at in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from detection.data.annotations.ids import is_id, positions
from detection.data.annotations.masks import Array, Masks, mask_columns
from detection.data.annotations.values import FARTHEST, is_crowd, number_or_nan

SMALL, LARGE = 32**2, 96**2
"""COCO's borders of areas between small, medium and large objects, in pixels."""


class BoxKind(IntEnum):
    """What the ``bbox`` of an annotation is."""

    FOUR = 0
    ROTATED = 1
    """Five numbers."""
    MISSING = 2
    MALFORMED = 3


@dataclass(frozen=True)
class Columns:
    """Facts of N annotations of I images.

    Attributes:
        image: (N) position of its image; -1 if the file does not list it.
        category: (N) position of its class; -1 if the file does not list it.
        boxes: (N, 4) left, top, width and height as written; NaN unless there are four numbers.
        box_kind: (N) of :class:`BoxKind`.
        area: (N) as written; NaN where that is no number.
        crowd: (N) truth values.
        segmentations: (N) as written.
        sizes: (I, 2) width and height of the images in pixels; NaN where they are no numbers.
    """

    image: Array
    category: Array
    boxes: Array
    box_kind: Array
    area: Array
    crowd: Array
    segmentations: Sequence[Any]
    sizes: Array

    @classmethod
    def of(
        cls,
        images: Sequence[Mapping[str, Any]],
        categories: Sequence[Mapping[str, Any]],
        annotations: Sequence[Mapping[str, Any]],
    ) -> Columns:
        """The columns of an annotation file's lists."""
        boxes, box_kind = _boxes([item.get("bbox") for item in annotations])
        areas = [number_or_nan(item.get("area")) for item in annotations]
        sizes = [[number_or_nan(i.get("width")), number_or_nan(i.get("height"))] for i in images]
        return cls(
            image=_positions(images, [item["image_id"] for item in annotations]),
            category=_positions(categories, [item["category_id"] for item in annotations]),
            boxes=boxes,
            box_kind=box_kind,
            area=np.asarray(areas, float),
            crowd=np.fromiter(map(is_crowd, annotations), bool, len(annotations)),
            segmentations=[item.get("segmentation") for item in annotations],
            sizes=np.asarray(sizes, float).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.image)

    @cached_property
    def masks(self) -> Masks:
        """Of all annotations."""
        return mask_columns(self.segmentations)

    @cached_property
    def listed(self) -> Array:
        """(N) whether image and class are in the file."""
        return (self.image >= 0) & (self.category >= 0)

    @cached_property
    def objects(self) -> Array:
        """(N) whether it is an object to train with and to find: listed, and no crowd."""
        return self.listed & ~self.crowd

    @cached_property
    def image_sizes(self) -> Array:
        """(N, 2) width and height of the annotation's image; NaN where there is none."""
        sizes = np.concatenate([self.sizes, [[np.nan, np.nan]]])
        found: Array = sizes[self.image]
        return found

    @cached_property
    def box_areas(self) -> Array:
        """(N) width × height; NaN for what is no box of four numbers, or is empty."""
        width, height = self.boxes[:, 2], self.boxes[:, 3]
        return np.where((width > 0) & (height > 0), width * height, np.nan)

    @cached_property
    def scoring_areas(self) -> Array:
        """(N) what AP by scale goes by: the file's area, else the mask's, else the box's."""
        own = np.where(self.masks.usable, self.masks.area, self.box_areas)
        found: Array = np.where(self.area > 0, self.area, own)
        return found


def _positions(items: Sequence[Mapping[str, Any]], ids: Sequence[Any]) -> Array:
    where = positions([item["id"] if is_id(item["id"]) else None for item in items])
    where.pop(None, None)
    try:
        found = [where.get(value, -1) for value in ids]
    except TypeError:  # a list or an object as an id
        found = [where.get(value, -1) if is_id(value) else -1 for value in ids]
    return np.asarray(found, np.int64)


def _boxes(values: Sequence[Any]) -> tuple[Array, Array]:
    """Boxes (N, 4) and their kinds (N)."""
    try:
        found = np.asarray(values)
    except ValueError:  # of several lengths
        found = np.zeros(0)
    if (
        found.dtype.kind in "iuf"
        and found.shape == (len(values), 4)
        and (np.abs(found) < FARTHEST).all()
    ):
        return found.astype(float), np.zeros(len(values), np.int8)
    boxes = np.full((len(values), 4), np.nan)
    kinds = np.full(len(values), BoxKind.MALFORMED, np.int8)
    for row, value in enumerate(values):
        if value is None:
            kinds[row] = BoxKind.MISSING
        elif isinstance(value, list | tuple) or hasattr(value, "tolist"):
            parts = value if isinstance(value, list | tuple) else np.atleast_1d(value).tolist()
            numbers = [number_or_nan(part) for part in parts]
            if len(numbers) in (4, 5) and (np.abs(numbers) < FARTHEST).all():
                kinds[row] = BoxKind.FOUR if len(numbers) == 4 else BoxKind.ROTATED
                boxes[row] = numbers if len(numbers) == 4 else np.nan
    return boxes, kinds
