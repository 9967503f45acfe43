"""Input size and anchors proposed from the objects of a training set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode

from detection.data.annotations.file import AnnotationFile
from detection.data.annotations.masks import Array
from detection.modeling.meta_arch import num_classes_key

SMALLEST = 24
"""Pixels that the side of a small object, larger than a tenth of all, should have as input."""

_LEAST, _MOST, _LONGEST = 320, 800, 1333  # of the input's sides; the upper two are COCO's habit
_ENLARGED = 1.5  # beyond this an image only gets blurred
STEP = 32
"""Pixels that sides of images are multiples of."""


@dataclass(frozen=True)
class InputSize:
    """Sides of a training or test image in pixels.

    Attributes:
        short: of the shorter side.
        long: at most, of the longer side.
    """

    short: int
    long: int

    def pairs(self) -> dict[str, object]:
        """The configuration's keys; training images vary in size, as in Detectron2's recipes."""
        least = _rounded(0.8 * self.short)
        return {
            "INPUT.MIN_SIZE_TRAIN": tuple(range(least, self.short + 1, STEP)),
            "INPUT.MAX_SIZE_TRAIN": self.long,
            "INPUT.MIN_SIZE_TEST": self.short,
            "INPUT.MAX_SIZE_TEST": self.long,
        }


def proposed_size(files: Sequence[AnnotationFile]) -> InputSize | None:
    """The input size at which a tenth of the objects is smaller than :data:`SMALLEST`.

    It stays between 320 and 800 pixels, and below 1.5 × the images' own size. None without objects.
    """
    small = np.concatenate([_relative_sides(file) for file in files])
    if not len(small):
        return None
    own = float(np.median(np.concatenate([_sides(file).min(1) for file in files])))
    most = min(_MOST, max(_ENLARGED * own, 2 * STEP))
    least = min(_LEAST, most)
    return input_size(files, float(np.clip(SMALLEST / np.quantile(small, 0.1), least, most)))


def input_size(files: Sequence[AnnotationFile], side: float) -> InputSize:
    """The size of images whose shorter side is resized to ``side`` pixels, rounded to 32.

    The longer side of 19 of 20 images is not limited, unless it is beyond COCO's 1333.

    Args:
        files: of the training sets, with the size of an image or more.
        side: in pixels.
    """
    sides = np.concatenate([_sides(file) for file in files])
    aspect = float(np.quantile(sides.max(1) / sides.min(1), 0.95))
    short = _rounded(side)
    return InputSize(short, min(max(_rounded(short * aspect), short), max(_LONGEST, short)))


def _relative_sides(file: AnnotationFile) -> Array:
    """(N) side of a square of an object's area over the shorter side of its image."""
    rows, sizes = _measurable(file), file.columns.image_sizes
    found: Array = np.sqrt(file.columns.box_areas[rows]) / sizes[rows].min(1)
    return found


def _sides(file: AnnotationFile) -> Array:
    """(I, 2) width and height of the images that say them."""
    sizes = file.columns.sizes
    found: Array = sizes[(sizes > 0).all(1)]
    return found


@dataclass(frozen=True)
class Anchors:
    """Anchors of a pyramid.

    Attributes:
        sizes: side of a square of the same area, in pixels of the input, for every level.
        ratios: height by width.
        overlap: mean, over the objects, of the intersection over union of an object with the best
            of the anchors at its own place.
    """

    sizes: list[list[float]]
    ratios: list[float]
    overlap: float

    def pairs(self) -> dict[str, object]:
        """The configuration's keys."""
        return {
            "MODEL.ANCHOR_GENERATOR.SIZES": self.sizes,
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [self.ratios],
        }


def configured_anchors(cfg: CfgNode, boxes: Array) -> Anchors | None:
    """The anchors of a configuration; None where it has no pyramid with anchors of one shape.

    Args:
        cfg: the whole configuration.
        boxes: (N, 2) width and height of the objects in pixels of the input.
    """
    node, count = cfg.MODEL.ANCHOR_GENERATOR, len(_strides(cfg))
    if not count or len(node.ASPECT_RATIOS) != 1 or len(node.SIZES) not in (1, count):
        return None
    sizes = [list(level) for level in node.SIZES] * (count // len(node.SIZES))
    ratios = list(node.ASPECT_RATIOS[0])
    return Anchors(sizes, ratios, _overlap(boxes, sizes, ratios))


def proposed_anchors(cfg: CfgNode, boxes: Array) -> Anchors | None:
    """As many anchors as the configuration has, with the sizes and shapes of the objects.

    Sizes are spread evenly, by their factors, from the 5th to the 95th percentile; each level's
    are 2 to 16 × its stride.

    Returns:
        The configuration's own where they fit as well; None without objects or a pyramid.
    """
    ours = configured_anchors(cfg, boxes)
    if ours is None or not len(boxes):
        return None
    strides = _strides(cfg)
    a_level = len(ours.sizes[0])
    low, high = np.quantile(np.sqrt(boxes.prod(1)), [0.05, 0.95])
    spread = np.geomspace(low, max(high, low * 1.01), len(strides) * a_level)
    spread = spread.reshape(len(strides), a_level)
    limits = np.asarray(strides)[:, None]
    sizes = np.clip(spread, 2 * limits, 16 * limits).round().astype(int).tolist()
    quantiles = (np.arange(len(ours.ratios)) + 0.5) / len(ours.ratios)
    shapes = np.exp(np.quantile(np.log(boxes[:, 1] / boxes[:, 0]), quantiles))
    ratios = [round(float(ratio), 2) for ratio in shapes]
    if len(set(ratios)) < len(ratios) or min(ratios) <= 0:
        ratios = ours.ratios
    found = Anchors(sizes, ratios, _overlap(boxes, sizes, ratios))
    return found if found.overlap > ours.overlap else ours


def input_boxes(files: Sequence[AnnotationFile], size: InputSize) -> Array:
    """(N, 2) width and height of all objects in pixels of the input."""
    found = []
    for file in files:
        rows = _measurable(file)
        sides = file.columns.image_sizes[rows]
        scale = np.minimum(size.short / sides.min(1), size.long / sides.max(1))
        found.append(file.columns.boxes[rows, 2:] * scale[:, None])
    return np.concatenate(found) if found else np.zeros((0, 2))


def _measurable(file: AnnotationFile) -> Array:
    columns = file.columns
    known = (columns.image_sizes > 0).all(1)
    found: Array = columns.objects & known & np.isfinite(columns.box_areas)
    return found


def _overlap(boxes: Array, sizes: Sequence[Sequence[float]], ratios: Sequence[float]) -> float:
    if not len(boxes):
        return 0.0
    step = max(1, len(boxes) // 100_000)  # a sample says as much
    boxes = boxes[::step]
    best = np.zeros(len(boxes))
    for size in {size for level in sizes for size in level}:
        for ratio in ratios:
            anchor = np.asarray([size / np.sqrt(ratio), size * np.sqrt(ratio)])
            common = np.minimum(boxes, anchor).prod(1)
            best = np.maximum(best, common / (boxes.prod(1) + size * size - common))
    return float(best.mean())


def _strides(cfg: CfgNode) -> list[int]:
    """Of the levels with anchors; none where their names do not say."""
    retina = (num_classes_key(cfg) or "").startswith("MODEL.RETINANET")
    names = (cfg.MODEL.RETINANET if retina else cfg.MODEL.RPN).IN_FEATURES
    levels = [re.fullmatch(r"p(\d)", name) for name in names]
    return [2 ** int(level[1]) for level in levels if level] if all(levels) else []


def _rounded(side: float) -> int:
    return max(STEP, round(side / STEP) * STEP)
