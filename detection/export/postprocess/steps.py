"""The steps from an image to detections, around the runs of a detector's networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .operators import (
    clip,
    decode,
    levels_of,
    non_maximum_suppression,
    paste,
    resize,
    resized_size,
    roi_align,
    sigmoid,
    softmax,
)

Arrays = dict[str, np.ndarray]
Run = Callable[[str, Arrays], Arrays]
Spec = Mapping[str, Any]


class Detections(NamedTuple):
    """What was found on one image, the best first.

    Attributes:
        boxes: (N, 4) float32: left, top, right and bottom in pixels of the image.
        scores: (N,) float32 in [0, 1].
        classes: (N,) integers from 0.
        masks: (N, H, W) bool; None for a detector of boxes alone.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | None = None

    def chosen(self, which: np.ndarray) -> Detections:
        """Those that an array of indices or of truth values names."""
        masks = None if self.masks is None else self.masks[which]
        return Detections(self.boxes[which], self.scores[which], self.classes[which], masks)


def detect(
    image: np.ndarray, detector: Spec, run: Run, masks: bool = True, channels_last: bool = False
) -> Detections:
    """Finds the objects on an image.

    Args:
        image: (H, W, 3) uint8, RGB.
        detector: the part ``detector`` of the file's contract.
        run: runs a network by its name, ``image``, ``boxes`` or ``masks``.
        masks: run the mask head where there is one.
        channels_last: ``run`` takes and gives maps as (N, H, W, C), as LiteRT's files do, and not
            as (N, C, H, W).
    """
    if channels_last:
        run = _channels_first(run)
    pixels, size = prepare(image, detector["image"])
    maps = {name: values[0] for name, values in run("image", {"image": pixels}).items()}
    if "boxes" in detector:
        proposals = propose(maps, detector["levels"], detector["proposals"], size)
        found = classify(proposals, maps, detector, run, size)
    else:
        found = dense_detections(maps, detector)
    scale = np.array([image.shape[1] / size[1], image.shape[0] / size[0]] * 2, np.float32)
    boxes = clip(found.boxes * scale, image.shape[:2])
    whole = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    small, boxes = found.chosen(whole), boxes[whole]
    pasted = None
    if masks and "masks" in detector:
        head = detector["masks"]
        pasted = paste(mask(small, maps, head, run), boxes, image.shape[:2], head["threshold"])
    return small._replace(boxes=boxes, masks=pasted)


def prepare(image: np.ndarray, rule: Spec) -> tuple[np.ndarray, tuple[int, int]]:
    """An image as the network takes it.

    Args:
        image: (H, W, 3) uint8, RGB.
        rule: ``order`` of the colours; ``shortest`` and ``longest`` side in pixels (``shortest`` 0
            keeps the size); ``divisor`` of the padded sides, or ``canvas``, their only values;
            ``padding``, the pixel that is padded with.

    Returns:
        (1, 3, H', W') float32 in [0, 255], padded below and on the right; height and width of the
        resized image in it.
    """
    canvas, divisor = rule["canvas"], rule["divisor"]
    height, width = resized_size(image.shape[:2], rule["shortest"], rule["longest"], canvas)
    small = resize(image, height, width)
    padded = canvas or [-(-side // divisor) * divisor for side in (height, width)]
    pixels = np.empty((*padded, 3), np.float32)
    pixels[:] = rule["padding"]
    pixels[:height, :width] = small[..., ::-1] if rule["order"] == "BGR" else small
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), (height, width)


def propose(maps: Arrays, levels: Sequence[Spec], rule: Spec, size: Sequence[int]) -> np.ndarray:
    """Boxes (N, 4) that may hold an object, the likeliest first, by a region proposal network.

    Args:
        maps: outputs of the network ``image``: (A, H, W) scores and (4·A, H, W) deltas.
        levels: of the pyramid: names of the maps, ``stride``, ``offset`` and ``anchors``.
        rule: ``candidates`` of a level, ``nms``, ``count``, ``smallest`` side.
        size: height and width of the resized image.
    """
    parts = []
    for number, level in enumerate(levels):
        logits = maps[level["scores"]].transpose(1, 2, 0).reshape(-1)
        best = np.argsort(-logits, kind="stable")[: rule["candidates"]]
        boxes = _boxes_of_anchors(maps, level, best)
        parts.append((boxes, logits[best], np.full(len(best), number)))
    boxes, scores, numbers = (np.concatenate(part) for part in zip(*parts, strict=True))
    usable = np.isfinite(boxes).all(1) & np.isfinite(scores)
    boxes = clip(boxes, size)
    usable &= (boxes[:, 2:] - boxes[:, :2] > rule["smallest"]).all(1)
    boxes, scores, numbers = boxes[usable], scores[usable], numbers[usable]
    kept = non_maximum_suppression(boxes, scores, numbers, rule["nms"], rule["count"])
    best_boxes: np.ndarray = boxes[kept]
    return best_boxes


def dense_detections(maps: Arrays, detector: Spec) -> Detections:
    """RetinaNet's detections in pixels of the resized image.

    Args:
        maps: outputs of the network ``image``: (A·K, H, W) scores and (4·A, H, W) deltas.
        detector: as for :func:`detect`.
    """
    parts = []
    for level in detector["levels"]:
        logits = maps[level["scores"]]
        logits = logits.reshape(len(level["anchors"]), -1, *logits.shape[1:])
        scores = sigmoid(logits.transpose(2, 3, 0, 1).reshape(-1, logits.shape[1]))
        anchor, kind = np.nonzero(scores > detector["score_threshold"])
        best = np.argsort(-scores[anchor, kind], kind="stable")[: detector["candidates"]]
        anchor, kind = anchor[best], kind[best]
        parts.append((_boxes_of_anchors(maps, level, anchor), scores[anchor, kind], kind))
    boxes, scores, kinds = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _best(Detections(boxes, scores, kinds), detector)


def classify(
    proposals: np.ndarray, maps: Arrays, detector: Spec, run: Run, size: tuple[int, int]
) -> Detections:
    """Fast R-CNN's detections among proposals (N, 4), in pixels of the resized image."""
    head = detector["boxes"]
    if not len(proposals):
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
    outputs = _run_head("boxes", pool(maps, proposals, head), head, run)
    boxes = decode(proposals, outputs["deltas"], head["box_weights"], head["scale_clamp"])
    scores = softmax(outputs["scores"])
    finite = np.isfinite(boxes).all(1) & np.isfinite(scores).all(1)
    scores, boxes = scores[finite, :-1], boxes[finite]
    boxes = clip(boxes.reshape(-1, 4), size).reshape(len(scores), boxes.shape[1] // 4, 4)
    row, kind = np.nonzero(scores > detector["score_threshold"])
    boxes = boxes[row, kind if boxes.shape[1] > 1 else 0]
    return _best(Detections(boxes, scores[row, kind], kind), detector)


def mask(found: Detections, maps: Arrays, head: Spec, run: Run) -> np.ndarray:
    """Probabilities (N, M, M) of the masks of detections in pixels of the resized image."""
    if not len(found.boxes):
        return np.zeros((0, 1, 1), np.float32)
    logits = _run_head("masks", pool(maps, found.boxes, head), head, run)["masks"]
    kinds = found.classes if logits.shape[1] > 1 else 0
    return sigmoid(logits[np.arange(len(logits)), kinds])


def pool(maps: Arrays, boxes: np.ndarray, head: Spec) -> np.ndarray:
    """Features (N, C, size, size) of boxes (N, 4), each from the pyramid level that fits it."""
    size, strides = head["size"], head["strides"]
    lowest, highest = (round(math.log2(strides[index])) for index in (0, -1))
    levels = levels_of(boxes, lowest, highest, head["canonical_size"], head["canonical_level"])
    pooled = np.empty((len(boxes), maps[head["features"][0]].shape[0], size, size), np.float32)
    for place, box, level in zip(pooled, boxes, levels, strict=True):
        features, scale = maps[head["features"][level]], 1 / strides[level]
        place[:] = roi_align(features, box, size, scale, head["sampling_ratio"], head["aligned"])
    return pooled


def _boxes_of_anchors(maps: Arrays, level: Spec, chosen: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) of the anchors of a level with these numbers: row by row, A a place."""
    deltas = maps[level["deltas"]]
    cells = np.asarray(level["anchors"], np.float32)
    place, cell = np.divmod(chosen, len(cells))
    y, x = np.divmod(place, deltas.shape[2])
    shifts = (np.stack([x, y, x, y], 1) + level["offset"]) * level["stride"]
    moves = deltas.reshape(len(cells), 4, *deltas.shape[1:])[cell, :, y, x]
    anchors = cells[cell] + shifts.astype(np.float32)
    return decode(anchors, moves, level["box_weights"], level["scale_clamp"])


def _best(found: Detections, detector: Spec) -> Detections:
    """Those that no better one of their class covers, as many as are asked for."""
    finite = np.isfinite(found.boxes).all(1) & np.isfinite(found.scores)
    found = found.chosen(finite)
    rule = detector["nms"], detector["detections"]
    return found.chosen(non_maximum_suppression(found.boxes, found.scores, found.classes, *rule))


def _run_head(name: str, features: np.ndarray, head: Spec, run: Run) -> Arrays:
    """The outputs of a head for N boxes; zeros fill up what a batch of fixed size lacks."""
    batch = head["batch"] or len(features)
    found = []
    for start in range(0, len(features), batch):
        part = features[start : start + batch]
        rows = np.zeros((batch, *part.shape[1:]), np.float32)
        rows[: len(part)] = part
        found.append(run(name, {"features": rows}))
    return {key: np.concatenate([part[key] for part in found])[: len(features)] for key in found[0]}


def _channels_first(run: Run) -> Run:
    """Maps (N, C, H, W) for networks that take and give them as (N, H, W, C)."""

    def run_turned(name: str, arrays: Arrays) -> Arrays:
        turned = {key: np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for key, x in arrays.items()}
        outputs = run(name, turned)
        return {key: x.transpose(0, 3, 1, 2) if x.ndim == 4 else x for key, x in outputs.items()}

    return run_turned
