"""The best and the worst test images of a detector, with boxes and masks as data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as mask_util

from detection.data.annotations.masks import encoded, usable_mask
from detection.data.checks import load_records
from detection.data.image_files import read_image
from detection.engine.overlays import Objects, Overlay
from detection.samples import SCORE, Found, Picked, class_index, run_length_bytes
from detection.visualization import LONG_SIDE

_MOST_CLASSES = 127
"""That masks can tell apart: W&B writes them with signed bytes."""


def overlays_of(
    dataset: str, picked: Sequence[Picked], detected: Mapping[Hashable, Sequence[Found]]
) -> list[Overlay]:
    """Test images with their ground truth and predictions, at most ``LONG_SIDE`` pixels long.

    Args:
        dataset: a registered COCO-format data set.
        picked: which images.
        detected: detections in COCO's result format by image; those below ``SCORE`` are left out.
    """
    records = {record["image_id"]: record for record in load_records(dataset)}
    metadata = MetadataCatalog.get(dataset)  # which has its classes once the records are loaded
    labels = dict(enumerate(map(str, metadata.thing_classes), start=1))
    found = []
    for pick in picked:
        record = records[pick.image_id]
        image = Image.fromarray(read_image(record["file_name"]))
        scale = min(1.0, LONG_SIDE / max(image.size))
        shown = image.resize([max(1, round(side * scale)) for side in image.size])
        results = [item for item in detected.get(pick.image_id, ()) if item["score"] >= SCORE]
        caption = f"{pick.title}, F1 {pick.quality.f1:.2f}"
        truth = _truth(record.get("annotations", []), image.size, shown.size, len(labels))
        predicted = _predicted(results, metadata, image.size, shown.size, len(labels))
        found.append(Overlay(np.asarray(shown), caption, labels, truth, predicted))
    return found


def _truth(
    annotations: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    shown: tuple[int, int],
    classes: int,
) -> Objects:
    """Records of Detectron2's, of an image of ``size``, width and height, as it is ``shown``."""
    width, height = size
    boxes = [
        BoxMode.convert(list(map(float, item["bbox"])), item["bbox_mode"], BoxMode.XYXY_ABS)
        for item in annotations
    ]
    masks = [usable_mask(item.get("segmentation")) for item in annotations]
    codes = [encoded(mask, height, width) if mask is not None else None for mask in masks]
    numbers = tuple(int(item["category_id"]) + 1 for item in annotations)
    mask = _painted(codes, numbers, shown) if classes <= _MOST_CLASSES else None
    return Objects(_scaled(boxes, size, shown), numbers, mask=mask)


def _predicted(
    results: Sequence[Found],
    metadata: Any,
    size: tuple[int, int],
    shown: tuple[int, int],
    classes: int,
) -> Objects:
    """Detections of an image of ``size``, the best one last, as they are ``shown``."""
    results = sorted(results, key=lambda item: float(item["score"]))
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (item["bbox"] for item in results)]
    numbers = tuple(class_index(item, metadata) + 1 for item in results)
    codes = [
        run_length_bytes(item["segmentation"]) if "segmentation" in item else None
        for item in results
    ]
    mask = _painted(codes, numbers, shown) if classes <= _MOST_CLASSES else None
    scores = tuple(float(item["score"]) for item in results)
    return Objects(_scaled(boxes, size, shown), numbers, scores, mask)


def _scaled(
    boxes: Sequence[Sequence[float]], size: tuple[int, int], shown: tuple[int, int]
) -> np.ndarray:
    factors = np.array(shown) / np.array(size)
    return np.array(boxes, float).reshape(-1, 4) * np.tile(factors, 2)


def _painted(
    codes: Sequence[Mapping[str, Any] | None], numbers: Sequence[int], shown: tuple[int, int]
) -> np.ndarray | None:
    """Masks in one picture, one over the other; None where there is none at all."""
    if codes and not any(codes):
        return None
    canvas = np.zeros(shown[::-1], np.uint8)
    for code, number in zip(codes, numbers, strict=True):
        if code is not None:
            mask = Image.fromarray(mask_util.decode(code))
            canvas[np.asarray(mask.resize(shown, Image.Resampling.NEAREST)) > 0] = number
    return canvas
