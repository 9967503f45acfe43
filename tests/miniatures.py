"""ImageNet and COCO in miniature: their folders, files and oddities, with a few small images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image, ImageDraw

CLASSES = 1000
COCO_SIZES = ((160, 120), (120, 160), (128, 128), (200, 150), (96, 144), (144, 96))
"""Width and height in pixels of the images of a split."""

GREY, CROWDED, EMPTY = 2, 1, len(COCO_SIZES) - 1
"""Which of them is greyscale, which has a crowd, and which has no annotation."""

Polygon = list[float]
"""x and y of every corner in turn, as COCO writes them."""


def write_imagenet(datasets: Path) -> Path:
    """``imagenet/{train,val}/<wnid>/*.JPEG`` below ``datasets``, one image per class and split.

    As in the real one, some are greyscale, one is in CMYK, and one is a PNG by the name of a JPEG
    (the lists in ``build_imagenet_data.py`` of TensorFlow's Inception).
    """
    root = datasets / "imagenet"
    rng = np.random.default_rng(0)
    for index in range(CLASSES):
        wnid = f"n{1440764 + 3 * index:08d}"
        colour = rng.integers(0, 256, 3)
        for split, name in (
            ("train", f"{wnid}_{rng.integers(20_000)}.JPEG"),
            ("val", f"ILSVRC2012_val_{index + 1:08d}.JPEG"),
        ):
            height, width = rng.integers(33, 48, 2)
            noise = rng.integers(-40, 41, (height, width, 3))
            image = Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))
            folder = root / split / wnid
            folder.mkdir(parents=True)
            if index % 100 == 7:
                image = image.convert("L")
            elif index == 500:
                image = image.convert("CMYK")
            image.save(folder / name, "PNG" if index == 600 else "JPEG")
    return root


def write_coco(datasets: Path) -> Path:
    """``coco/annotations``, ``coco/train2017`` and ``coco/val2017`` below ``datasets``.

    All 80 categories with the gaps in their ids; small, medium and large objects; an object of
    two polygons on every image; and what `GREY`, `CROWDED` and `EMPTY` say.
    """
    root = datasets / "coco"
    (root / "annotations").mkdir(parents=True)
    things = [item for item in COCO_CATEGORIES if item["isthing"]]
    categories = [{"id": item["id"], "name": item["name"]} for item in things]
    for number, split in enumerate(("train2017", "val2017")):
        (root / split).mkdir()
        content: dict[str, Any] = {
            "info": {"description": "COCO 2017 in miniature", "version": "1.0", "year": 2017},
            "licenses": [{"id": 1, "name": "none", "url": ""}],
            "images": [],
            "annotations": [],
            "categories": categories,
        }
        for index, size in enumerate(COCO_SIZES):
            image_id = 139 + 1000 * number + 146 * index
            _add_image(content, root / split, image_id, index, size)
        path = root / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content))
    return root


def _add_image(
    content: dict[str, Any], folder: Path, image_id: int, index: int, size: tuple[int, int]
) -> None:
    """Draws an image and appends it and its objects to the annotations."""
    width, height = size
    rng = np.random.default_rng(image_id)
    image = Image.fromarray(rng.integers(0, 70, (height, width, 3), dtype=np.uint8))
    name = f"{image_id:012d}.jpg"
    content["images"].append(
        {"id": image_id, "file_name": name, "width": width, "height": height, "license": 1}
    )
    objects = [] if index == EMPTY else _objects(width, height)
    for number, polygons in enumerate(objects):
        colour = tuple(int(value) for value in rng.integers(90, 256, 3))
        for polygon in polygons:
            ImageDraw.Draw(image).polygon(polygon, fill=colour)
        # from the last of the 80 on, in steps of 13
        category = content["categories"][(79 + 13 * len(content["annotations"])) % 80]["id"]
        content["annotations"].append(
            {
                "id": 42986 + len(content["annotations"]),
                "image_id": image_id,
                "category_id": category,
                "iscrowd": 0,
                "segmentation": polygons,
                "area": sum(map(_area, polygons)),
                "bbox": _box(polygons),
            }
        )
        if index == CROWDED and number == 0:
            content["annotations"].append(_crowd(image_id, width, height))
    if index == GREY:
        image = image.convert("L")
    image.save(folder / name)


def _objects(width: int, height: int) -> list[list[Polygon]]:
    """A small, a medium and a large octagon, and two parts of one object behind another."""
    large = min(width, height) - 6
    return [
        [_octagon(4, 4, large, large)],
        [_octagon(width / 2, height / 2, 44, 40)],
        [_octagon(6, height - 30, 22, 20)],
        [_octagon(width - 40, 8, 14, 30), _octagon(width - 20, 8, 14, 30)],
    ]


def _octagon(x: float, y: float, width: float, height: float) -> Polygon:
    """The octagon that fits the box with its upper left corner at (x, y)."""
    corner_x, corner_y = width * 0.3, height * 0.3
    xs = (corner_x, width - corner_x, width, width, width - corner_x, corner_x, 0, 0)
    ys = (0, 0, corner_y, height - corner_y, height, height, height - corner_y, corner_y)
    return [round(value, 2) for dx, dy in zip(xs, ys, strict=True) for value in (x + dx, y + dy)]


def _area(polygon: Polygon) -> float:
    """By the shoelace formula."""
    xs, ys = np.array(polygon[::2]), np.array(polygon[1::2])
    return float(abs(xs @ np.roll(ys, 1) - ys @ np.roll(xs, 1)) / 2)


def _box(polygons: list[Polygon]) -> list[float]:
    """[x, y, width, height] around all parts."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _crowd(image_id: int, width: int, height: int) -> dict[str, Any]:
    """A group of persons along the lower edge, run-length encoded without compression."""
    mask = np.zeros((height, width), bool)
    mask[-24:, 30:-10] = True
    mask[-12:, 50:60] = False
    flat = mask.flatten(order="F")
    ends = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1), flat.size]
    return {
        "id": 900_100_000_000 + image_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 1,
        # COCO counts down the columns, pixels outside first
        "segmentation": {"counts": np.diff(ends).tolist(), "size": [height, width]},
        "area": int(mask.sum()),
        "bbox": [30, height - 24, width - 40, 24],
    }
