"""Detections as files: COCO's annotation format with scores, and COCO's list of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_util
from tabulate import tabulate

from backbones.errors import UserError
from backbones.files import write_json
from detection.data.annotations.file import read_annotations
from detection.data.annotations.ids import id_order
from detection.evaluation import PREDICTIONS_FILE
from detection.export.postprocess import Detections
from detection.scoring import METRICS, score

DETECTIONS_FILE = "predictions.json"


@dataclass
class CocoResults:
    """The detections of all images, in COCO's formats.

    Attributes:
        labels: names of the classes, in their order; empty if they are not known.
        truth: content of an annotation file, whose ids are used; None numbers images and classes
            from 1.
        images: entries of the images, as in an annotation file.
        results: entries of the detections, as in a file of results.
    """

    labels: Sequence[str]
    truth: Mapping[str, Any] | None = None
    images: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ids = {image["file_name"]: image["id"] for image in self._truth("images")}
        ordered = sorted(self._truth("categories"), key=lambda entry: id_order(entry["id"]))
        self._categories = [{"id": item["id"], "name": item["name"]} for item in ordered]
        names = [str(item["name"]) for item in ordered]
        if self.truth is not None and self.labels and names != list(self.labels):
            raise UserError(
                f"the annotation file has the classes {', '.join(names)}, and the model was "
                f"trained on {', '.join(self.labels)}; name the annotations of the same classes"
            )

    def add(self, path: Path, image: np.ndarray, found: Detections) -> None:
        """Takes over what was found on an image (H, W, 3).

        Raises:
            UserError: if the annotation file has no such image.
        """
        height, width = image.shape[:2]
        number = len(self.images) + 1 if self.truth is None else self._id(path)
        self.images.append({"id": number, "file_name": str(path), "height": height, "width": width})
        for index, (box, value, kind) in enumerate(
            zip(found.boxes, found.scores, found.classes, strict=True)
        ):
            left, top, right, bottom = (float(side) for side in box)
            entry: dict[str, Any] = {
                "image_id": number,
                "category_id": self._category(int(kind)),
                "bbox": [left, top, right - left, bottom - top],
                "score": float(value),
            }
            if found.masks is not None:
                entry["segmentation"] = encoded(found.masks[index])
            self.results.append(entry)

    def write(self, folder: Path) -> None:
        """Writes both files."""
        write_json(folder / PREDICTIONS_FILE, self.results)
        write_json(folder / DETECTIONS_FILE, self.content())

    def content(self) -> dict[str, Any]:
        """Images, classes and detections as an annotation file has them, with scores."""
        known = [{"id": number, "name": name} for number, name in enumerate(self.labels, start=1)]
        used = sorted({result["category_id"] for result in self.results}, key=id_order)
        unnamed = [{"id": number, "name": str(number)} for number in used]
        return {
            "images": self.images,
            "categories": self._categories or known or unnamed,
            "annotations": [
                {"id": number, "iscrowd": 0, "area": _area(result), **result}
                for number, result in enumerate(self.results, start=1)
            ],
        }

    def scores(self) -> dict[str, dict[str, float]]:
        """AP of boxes and, where there are any, of masks, of the images that were looked at."""
        assert self.truth is not None
        seen = {image["id"] for image in self.images}
        annotations = {
            **self.truth,
            "images": [image for image in self.truth["images"] if image["id"] in seen],
            "annotations": [
                item for item in self.truth.get("annotations", ()) if item["image_id"] in seen
            ],
        }
        masks = any("segmentation" in result for result in self.results)
        tasks = ("bbox", "segm") if masks else ("bbox",)
        return {task: score(annotations, self.results, task) for task in tasks}

    def _truth(self, part: str) -> list[dict[str, Any]]:
        return list(self.truth.get(part, ())) if self.truth is not None else []

    def _id(self, path: Path) -> Any:
        """Of the image whose name in the annotation file is the longest end of the path."""
        for start in range(len(path.parts)):
            if (name := "/".join(path.parts[start:])) in self._ids:
                return self._ids[name]
        raise UserError(
            f"the annotation file has no image '{path.name}'; name the images that belong to it, "
            "or leave --annotations out"
        )

    def _category(self, kind: int) -> Any:
        if not self._categories:
            return kind + 1
        if kind >= len(self._categories):
            raise UserError(
                f"the model finds class {kind + 1}, and the annotation file has "
                f"{len(self._categories)}; name the annotations of the same classes"
            )
        return self._categories[kind]["id"]


def scores_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """AP, AP50, AP75 and AP by object scale as a table in Markdown."""
    rows = [[task, *(values[name] for name in METRICS)] for task, values in scores.items()]
    return tabulate(rows, ["AP of", *METRICS], tablefmt="pipe", floatfmt=".2f")


def read_truth(path: str) -> Mapping[str, Any]:
    """The content of an annotation file.

    Raises:
        UserError: if it is missing, or is none.
    """
    try:
        return read_annotations(path).content
    except FileNotFoundError:
        raise UserError(f"no annotation file at '{path}'; check the path") from None


def encoded(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) run-length encoded, as JSON holds it."""
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def _area(result: Mapping[str, Any]) -> float:
    if "segmentation" in result:
        return float(mask_util.area(result["segmentation"]))
    width, height = result["bbox"][2:]
    return float(width * height)
