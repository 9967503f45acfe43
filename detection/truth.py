"""The ground truth as both implementations of COCO's AP take it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from backbones.errors import UserError
from detection.data.annotations.ids import id_order
from detection.data.annotations.masks import Array, encoded, mask_columns, readable
from detection.data.annotations.values import is_crowd, number_or_nan, whole

Result = dict[str, Any]
"""One detection in COCO's result format."""


@dataclass(frozen=True)
class Truth:
    """Annotations with ids from 1 on, in the order of the file's own ids.

    The implementations turn ids into numbers of 53 or 63 bits each in its own manner, take 0 for
    "matched to nothing", and refuse text: so they are given none of the file's.

    Attributes:
        content: as an annotation file; both implementations write into it.
        images: number of every image by its id in the file.
        categories: number of every class by its id in the file.
        classes: names in the order of their numbers, all different.
    """

    content: dict[str, Any]
    images: dict[Hashable, int]
    categories: dict[Hashable, int]
    classes: list[str]

    @classmethod
    def of(cls, annotations: Mapping[str, Any], task: str) -> Truth:
        """What a task is scored against; the annotations are not changed.

        Objects of images or classes that the file does not list are left out. An object without a
        usable mask is, for ``segm``, a crowd as large as its box: it is not asked for, and what is
        found in it is no mistake.

        Raises:
            UserError: if two images or two classes have one id, or a mask has another size than
                its image.
        """
        images = _numbered(annotations["images"], "images")
        categories = _numbered(annotations["categories"], "categories")
        image_number = {image["id"]: number for number, image in enumerate(images, 1)}
        category_number = {item["id"]: number for number, item in enumerate(categories, 1)}
        objects = [
            {
                **item,
                "image_id": image_number[item["image_id"]],
                "category_id": category_number[item["category_id"]],
                "iscrowd": is_crowd(item),
            }
            for item in annotations["annotations"]
            if item["image_id"] in image_number and item["category_id"] in category_number
        ]
        for number, item in enumerate(objects, 1):
            item["id"] = number
        content = {
            "images": [_sized(image, number) for number, image in enumerate(images, 1)],
            "categories": [{**item, "id": number} for number, item in enumerate(categories, 1)],
            "annotations": objects,
        }
        _fill_masks_and_areas(content["images"], objects, task)
        return cls(content, image_number, category_number, _names(categories))

    def numbered(self, results: Sequence[Result], task: str) -> list[Result]:
        """Copies of detections with the numbers of their images and classes.

        Detections of an unknown class are left out, as both implementations do.

        Raises:
            UserError: if one is of an unknown image.
        """
        # With boxes present, masks would be assigned to scales by the area of their box.
        fields = ("bbox",) if task == "segm" else ()
        found = []
        for result in results:
            if result["image_id"] not in self.images:
                raise UserError(
                    f"a detection is of image {result['image_id']}, which the annotation file does "
                    "not list; the detections belong to another data set"
                )
            if result["category_id"] in self.categories:
                copy = {key: value for key, value in result.items() if key not in fields}
                copy["image_id"] = self.images[result["image_id"]]
                copy["category_id"] = self.categories[result["category_id"]]
                found.append(copy)
        return found


def _numbered(items: Sequence[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
    found = sorted(items, key=lambda item: id_order(item["id"]))
    counts = Counter(item["id"] for item in items)
    if len(counts) < len(items):
        twice = next(value for value, count in counts.items() if count > 1)
        raise UserError(
            f"the annotation file has {counts[twice]} {what} with the id {twice!r}; give every one "
            "an id of its own"
        )
    return found


def _sized(image: Mapping[str, Any], number: int) -> dict[str, Any]:
    """An image with its number; both implementations refuse sizes such as 640.0."""
    sizes = {key: image[key] for key in ("height", "width") if key in image}
    return {**image, **{key: whole(side) for key, side in sizes.items()}, "id": number}


def _names(categories: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name that stands twice is told apart by the class's id."""
    names = [str(item.get("name", item["id"])) for item in categories]
    counts = Counter(names)
    return [
        f"{name} ({item['id']})" if counts[name] > 1 else name
        for name, item in zip(names, categories, strict=True)
    ]


def _fill_masks_and_areas(
    images: Sequence[Mapping[str, Any]], objects: list[dict[str, Any]], task: str
) -> None:
    """Makes every area a positive number, and, for ``segm``, every mask one that can be read."""
    areas = np.array([number_or_nan(item.get("area")) for item in objects])
    asked = np.ones(len(objects), bool) if task == "segm" else ~(areas > 0)
    rows = np.flatnonzero(asked)
    masks = mask_columns([objects[row].get("segmentation") for row in rows])
    for row, kind, usable, size in zip(rows, masks.kind, masks.usable, masks.size, strict=True):
        item = objects[row]
        image = images[item["image_id"] - 1]
        shape = [image.get("height"), image.get("width")]
        if task == "segm" and usable:
            _check_size(item, shape, size)
        if usable:
            item["segmentation"] = readable(item["segmentation"], kind)
        if not areas[row] > 0:
            item["area"] = _area(item, shape) if usable else _box_area(item["bbox"])
        if task == "segm" and not usable:
            x, y, w, h = item["bbox"]
            item["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            item["iscrowd"] = 1


def _area(item: Mapping[str, Any], shape: Sequence[Any]) -> float:
    mask = item["segmentation"]
    if None in shape and not isinstance(mask, Mapping):
        return float(mask_columns([mask]).area[0])
    return float(mask_util.area(encoded(mask, *shape)))


def _box_area(box: Sequence[float]) -> float:
    return float(max(box[2], 0) * max(box[3], 0))


def _check_size(item: Mapping[str, Any], shape: Sequence[Any], size: Array) -> None:
    if isinstance(item["segmentation"], Mapping) and size.tolist() != shape:
        raise UserError(
            f"a mask has height and width {size.astype(int).tolist()}, but its image has {shape}; "
            "use the annotation file that belongs to these images"
        )
