"""Predictions drawn on their images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances
from detectron2.utils.visualizer import Visualizer
from PIL import Image

from backbones.files import write_atomic
from detection.export.postprocess import Detections
from detection.visualization import LONG_SIDE, same_colours


def draw_detections(
    image: np.ndarray, found: Detections, labels: Sequence[str], confidence: float
) -> np.ndarray:
    """The objects of a score on an image (H, W, 3), uint8, RGB, of at most `LONG_SIDE` pixels."""
    found = found.chosen(found.scores >= confidence)
    instances = Instances(image.shape[:2])
    instances.pred_boxes = Boxes(torch.from_numpy(found.boxes))
    instances.scores = torch.from_numpy(found.scores)
    instances.pred_classes = torch.from_numpy(found.classes)
    if found.masks is not None:
        instances.pred_masks = torch.from_numpy(found.masks)
    drawn = _visualizer(image, labels)
    with same_colours():
        drawn.draw_instance_predictions(instances)
    return np.asarray(drawn.output.get_image())


def draw_classes(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Lines of text over the upper left corner of an image (H, W, 3), uint8, RGB."""
    drawn = _visualizer(image, ())
    place = (image.shape[1] / 50, image.shape[0] / 50)
    drawn.draw_text("\n".join(lines), place, horizontal_alignment="left")
    return np.asarray(drawn.output.get_image())


def _visualizer(image: np.ndarray, labels: Sequence[str]) -> Visualizer:
    names = {"thing_classes": list(labels)} if labels else {}
    scale = min(1.0, LONG_SIDE / max(image.shape[:2]))
    return Visualizer(image, Metadata(name="prediction", **names), scale=scale)


class Drawings:
    """Writes drawings into a folder, each by the name of its photo.

    Args:
        folder: for the drawings.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[str] = set()

    def write(self, photo: Path, drawing: np.ndarray) -> None:
        """As JPEG; photos of one name from several folders are numbered."""
        name, number = photo.stem, 1
        while name.lower() in self._taken:  # a disk may not tell capitals from small letters
            number += 1
            name = f"{photo.stem}_{number}"
        self._taken.add(name.lower())
        file = io.BytesIO()
        Image.fromarray(drawing).save(file, "JPEG", quality=90)
        write_atomic(self.folder / f"{name}.jpg", file.getvalue())
