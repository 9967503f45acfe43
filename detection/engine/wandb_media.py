"""Images, histograms and overlays as W&B's own types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from detectron2.utils.events import EventStorage

from detection.engine.overlays import Objects, Overlay

_MAX_BINS = 512  # of wandb.Histogram


def media(wandb: Any, storage: EventStorage) -> dict[str, Any]:
    """Images and histograms of the storage; TensorBoard's writer empties it afterwards."""
    found = {name: wandb.Image(_as_image(image)) for name, image, _ in storage._vis_data}
    for histogram in storage._histograms:
        counts, edges = _rebinned(histogram)
        found[histogram["tag"]] = wandb.Histogram(np_histogram=(counts, edges))
    return found


def overlaid(wandb: Any, overlay: Overlay) -> Any:
    """A picture whose boxes and masks W&B shows and hides by class and by score."""
    groups = {"ground truth": overlay.truth, "predictions": overlay.found}
    masks = {
        name: {"mask_data": objects.mask, "class_labels": overlay.labels}
        for name, objects in groups.items()
        if objects.mask is not None
    }
    boxes = {name: _boxes(objects, overlay.labels) for name, objects in groups.items()}
    return wandb.Image(
        overlay.image, caption=overlay.caption, boxes=boxes, masks=masks or None, file_type="jpg"
    )


def _boxes(objects: Objects, labels: Mapping[int, str]) -> dict[str, Any]:
    corners = ("minX", "minY", "maxX", "maxY")
    rows = []
    for index, (box, number) in enumerate(zip(objects.boxes, objects.classes, strict=True)):
        row: dict[str, Any] = {
            "position": dict(zip(corners, map(float, box), strict=True)),
            "domain": "pixel",
            "class_id": number,
            "box_caption": labels[number],
        }
        if objects.scores:
            row["scores"] = {"score": objects.scores[index]}
            row["box_caption"] += f" {objects.scores[index]:.2f}"
        rows.append(row)
    return {"box_data": rows, "class_labels": dict(labels)}


def _as_image(image: Any) -> np.ndarray:
    """(3, H, W), floats in [0, 1] or bytes → (H, W, 3) bytes."""
    array = np.asarray(image.cpu() if hasattr(image, "cpu") else image)
    if array.dtype != np.uint8:
        array = (np.clip(array, 0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def _rebinned(histogram: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Counts and edges with neighbouring bins joined until W&B takes them."""
    counts = np.asarray(histogram["bucket_counts"])
    edges = np.asarray([histogram["min"], *histogram["bucket_limits"]])
    width = -(-len(counts) // _MAX_BINS)
    starts = np.arange(0, len(counts), width)
    return np.add.reduceat(counts, starts), np.append(edges[starts], edges[-1])
