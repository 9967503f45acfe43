"""ImageNet and COCO as far as a recipe's first steps see them: layout, format and size of images.

Few images are drawn; the others are the same files under other names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image

IMAGENET_SIZE = (500, 375)
COCO_SIZE = (640, 480)
"""Width and height in pixels: the most frequent ones."""

OBJECTS, POINTS = 7, 24
"""Objects per image, and corners of the outline of each, as in COCO on average."""


def write_imagenet(datasets: Path, classes: int, per_class: int, drawn: int, scale: float) -> None:
    """``imagenet/{train,val}/<wnid>/*.JPEG`` below ``datasets``.

    Args:
        datasets: folder of the data sets.
        classes: folders of each split.
        per_class: training images of each; one in the validation.
        drawn: images that differ.
        scale: of their sides.
    """
    root = datasets / "imagenet"
    originals = _draw(root / "drawn", drawn, IMAGENET_SIZE, scale)
    for index in range(classes):
        wnid = f"n{1440764 + 3 * index:08d}"
        for split, count in (("train", per_class), ("val", 1)):
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                original = originals[(index * per_class + number) % drawn]
                os.link(original, folder / f"{wnid}_{number}.JPEG")


def write_coco(datasets: Path, images: int, drawn: int, scale: float) -> None:
    """``coco/annotations``, ``coco/train2017`` and ``coco/val2017`` below ``datasets``.

    Args:
        datasets: folder of the data sets.
        images: of the training; the validation has the drawn ones.
        drawn: images that differ.
        scale: of their sides.
    """
    root = datasets / "coco"
    originals = _draw(root / "drawn", drawn, COCO_SIZE, scale)
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train2017", images), ("val2017", drawn)):
        (root / split).mkdir()
        content = _annotations(count, scale)
        for record in content["images"]:
            original = originals[record["id"] % drawn]
            os.link(original, root / split / record["file_name"])
        path = root / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content), encoding="utf-8")


def _draw(folder: Path, count: int, size: tuple[int, int], scale: float) -> list[Path]:
    """JPEGs of smooth patterns with some noise, which take about the bytes that photos do."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    width, height = (round(side * scale) for side in size)
    paths = []
    for number in range(count):
        coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 12, (height, width, 3))
        pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def _annotations(images: int, scale: float) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    width, height = (round(side * scale) for side in COCO_SIZE)
    things = [item for item in COCO_CATEGORIES if item["isthing"]]
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    names = {n: f"{n:012d}.jpg" for n in range(images)}
    sizes = {"width": width, "height": height}
    content: dict[str, Any] = {
        "images": [{"id": n, "file_name": name, **sizes} for n, name in names.items()],
        "categories": [{"id": item["id"], "name": item["name"]} for item in things],
        "annotations": [],
    }
    for number in range(images * OBJECTS):
        radius = rng.uniform(4, min(width, height) / 4, 2)
        centre = radius + rng.random(2) * (np.array([width, height]) - 2 * radius)
        content["annotations"].append(
            {
                "id": number + 1,
                "image_id": number // OBJECTS,
                "category_id": things[number % len(things)]["id"],
                "iscrowd": 0,
                "bbox": [*(centre - radius).round(2).tolist(), *(2 * radius).round(2).tolist()],
                "area": round(float(3 * radius.prod()), 2),
                "segmentation": [(centre + radius * circle).round(2).ravel().tolist()],
            }
        )
    return content
