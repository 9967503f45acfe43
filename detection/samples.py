"""The test images that a detector does best and worst on, drawn beside their ground truth."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_util

from backbones.files import read_json, write_json
from detection.data.annotations.file import read_annotations
from detection.data.annotations.overview import facts
from detection.data.annotations.values import is_crowd
from detection.data.checks import load_records
from detection.engine.wandb_writer import WandbWriter
from detection.visualization import PredictionImages, write_jpeg

SAMPLES_FILE = "samples.json"
SCORE, IOU = 0.5, 0.5
"""What a detection has to have to count, and to be an object's."""

_log = logging.getLogger(__name__)

Found = Mapping[str, Any]
"""A detection in COCO's result format."""


@dataclass(frozen=True)
class Quality:
    """How an image's detections compare with its objects.

    Attributes:
        found: objects that a detection of their class has, one to one.
        missed: objects that none has.
        wrong: detections of no object.
    """

    found: int
    missed: int
    wrong: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 without detections and objects."""
        count = 2 * self.found + self.missed + self.wrong
        return 2 * self.found / count if count else 0.0


@dataclass(frozen=True)
class Picked:
    """An image that is shown.

    Attributes:
        kind: ``best`` or ``worst``.
        number: from 1 on, among those.
        image_id: in the annotation file.
        path: of the image.
        quality: of its detections.
    """

    kind: str
    number: int
    image_id: Hashable
    path: str
    quality: Quality

    @property
    def title(self) -> str:
        """``best 1: photo.jpg``."""
        return f"{self.kind} {self.number}: {Path(self.path).name}"


def leave_samples(cfg: CfgNode, wandb: WandbWriter | None = None) -> None:
    """Draws the best and the worst images of the first test set, where it was evaluated as COCO's.

    They are ``best_1_….jpg`` and ``worst_1_….jpg`` with ``samples.json`` in
    ``OUTPUT_DIR/predictions/<data set>``, ``TEST.NUM_VISUALIZATIONS`` of each. What goes wrong is
    logged: the figures of the run do not depend on its pictures. W&B gets the same images with
    boxes and masks over them.

    Args:
        cfg: of the run; the predictions of its last evaluation are there.
        wandb: the writer of the run, if there is one.
    """
    from detection.evaluation import PREDICTIONS_FILE
    from detection.overlays import overlays_of

    name = cfg.DATASETS.TEST[0] if cfg.DATASETS.TEST else ""
    place = Path(cfg.OUTPUT_DIR) / "inference" / name / PREDICTIONS_FILE
    if not (name and cfg.TEST.NUM_VISUALIZATIONS and place.exists()):
        return
    try:
        folder = Path(cfg.OUTPUT_DIR) / "predictions" / name
        results = read_json(place, "predictions")
        picked = write_samples(name, results, folder, cfg.TEST.NUM_VISUALIZATIONS)
        if wandb is not None and wandb.run_id:
            wandb.log_overlays(f"samples/{name}", overlays_of(name, picked, by_image(results)))
    except Exception as error:  # pictures are worth less than the run
        _log.warning("The best and worst images could not be drawn: %s", error)


def write_samples(dataset: str, results: Sequence[Found], folder: Path, count: int) -> list[Picked]:
    """Draws the images with the highest and the lowest F1, of boxes, and writes ``samples.json``.

    Args:
        dataset: a registered COCO-format data set.
        results: detections in COCO's result format.
        folder: for pictures and file.
        count: images of each kind; no image is of both.

    Returns:
        The images.
    """
    metadata = MetadataCatalog.get(dataset)
    file = read_annotations(metadata.json_file)
    ranked = rank(qualities(file.content["annotations"], results))
    best = ranked[: min(count, (len(ranked) + 1) // 2)]
    worst = ranked[len(best) :][-count:][::-1]
    paths = {record["image_id"]: record["file_name"] for record in load_records(dataset)}
    drawing = PredictionImages(dataset, count, SCORE)
    detected = by_image(results)
    for old in folder.glob("*_*.jpg"):
        if old.name.startswith(("best_", "worst_")):
            old.unlink()
    picked = [
        Picked(kind, number, image_id, paths[image_id], quality)
        for kind, group in (("best", best), ("worst", worst))
        for number, (image_id, quality) in enumerate(group, start=1)
    ]
    images = []
    for pick in picked:
        instances = _instances(detected[pick.image_id], metadata)
        picture = f"{pick.kind}_{pick.number}_{Path(pick.path).stem}.jpg"
        write_jpeg(folder / picture, drawing.draw(pick.path, instances))
        row = {"picture": picture, "image": Path(pick.path).name, "kind": pick.kind}
        images.append({**row, "f1": pick.quality.f1, **vars(pick.quality)})
    content = {"dataset": dataset, "score": SCORE, "iou": IOU, "facts": facts(file)}
    write_json(folder / SAMPLES_FILE, {**content, "images": images})
    return picked


def qualities(
    annotations: Sequence[Mapping[str, Any]], results: Sequence[Found]
) -> dict[Hashable, Quality]:
    """How good the boxes of every image are that has an object or a detection.

    Detections of a score of ``SCORE`` and more take, by falling score, the object of their class
    that they overlap most, by ``IOU`` and more. What lies in a crowd is no mistake.

    Args:
        annotations: of an annotation file.
        results: detections in COCO's result format.
    """
    objects: dict[Hashable, list[Mapping[str, Any]]] = defaultdict(list)
    for item in annotations:
        objects[item["image_id"]].append(item)
    found = {
        image: [item for item in items if item["score"] >= SCORE]
        for image, items in by_image(results).items()
    }
    return {
        image: _quality(objects.get(image, []), found.get(image, []))
        for image in {**objects, **found}
        if objects.get(image) or found.get(image)
    }


def rank(found: Mapping[Hashable, Quality]) -> list[tuple[Hashable, Quality]]:
    """Images from the best to the worst, with many objects before few, of the same F1."""

    def key(item: tuple[Hashable, Quality]) -> tuple[float, int]:
        quality = item[1]
        return -quality.f1, quality.missed + quality.wrong - quality.found

    return sorted(found.items(), key=key)


def _quality(objects: Sequence[Mapping[str, Any]], found: Sequence[Found]) -> Quality:
    crowd = [is_crowd(item) for item in objects]
    single = len(crowd) - sum(map(bool, crowd))
    if not (objects and found):
        return Quality(0, single, len(found))
    found = sorted(found, key=lambda item: -item["score"])
    boxes = [np.array([item["bbox"] for item in items], float) for items in (found, objects)]
    overlaps = np.array(mask_util.iou(*boxes, [int(bool(flag)) for flag in crowd]))
    taken: set[int] = set()
    wrong = 0
    for item, row in zip(found, overlaps, strict=True):
        near = [
            index
            for index in np.argsort(-row)
            if row[index] >= IOU
            and index not in taken
            and objects[index]["category_id"] == item["category_id"]
        ]
        match = next((i for i in near if not crowd[i]), None)
        if match is not None:
            taken.add(match)
        elif not near:
            wrong += 1
    return Quality(len(taken), single - len(taken), wrong)


def by_image(results: Sequence[Found]) -> dict[Hashable, list[Found]]:
    """Detections with a box, by the image that they are of."""
    found: dict[Hashable, list[Found]] = defaultdict(list)
    for item in results:
        if "bbox" in item:
            found[item["image_id"]].append(item)
    return found


def _instances(found: Sequence[Found], metadata: Any) -> Instances:
    """Detections as Detectron2 draws them."""
    found = [item for item in found if item["score"] >= SCORE]
    masks = [item.get("segmentation") for item in found]
    size = tuple(masks[0]["size"]) if masks and masks[0] else (0, 0)
    instances = Instances(size)
    boxes = torch.tensor([item["bbox"] for item in found], dtype=torch.float32).reshape(-1, 4)
    instances.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
    instances.scores = torch.tensor([item["score"] for item in found])
    ids = [class_index(item, metadata) for item in found]
    instances.pred_classes = torch.tensor(ids, dtype=torch.int64)
    if masks and all(masks):
        decoded = [mask_util.decode(run_length_bytes(item["segmentation"])) for item in found]
        instances.pred_masks = torch.from_numpy(np.stack(decoded)).bool()
    return instances


def class_index(item: Found, metadata: Any) -> int:
    """The class of a detection, from 0 on."""
    classes: Mapping[Any, int] = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    return int(classes.get(item["category_id"], item["category_id"]))


def run_length_bytes(mask: Mapping[str, Any]) -> dict[str, Any]:
    """Run lengths as pycocotools wants them, which JSON cannot hold."""
    counts = mask["counts"]
    return {**mask, "counts": counts.encode() if isinstance(counts, str) else counts}
