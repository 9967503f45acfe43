"""From annotation files to Detectron2's records, and back for data sets that have no file."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import coco as detectron2_coco
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from detection.data.annotations.file import AnnotationFile, read_annotations
from detection.data.annotations.ids import id_order
from detection.data.annotations.masks import readable
from detection.data.annotations.structure import structure_findings
from detection.data.annotations.values import is_crowd, whole
from detection.data.findings import report

Record = dict[str, Any]
"""One image in Detectron2's standard format."""

_log = logging.getLogger(__name__)


def load_coco(
    json_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[Record]:
    """Detectron2's ``load_coco_json``, for files as people have them.

    An object without a usable mask keeps its box, ids may be any numbers or text, and a
    byte-order mark is no content. Faults of boxes and masks are not judged here.

    Args:
        json_file: in COCO's format.
        image_root: folder of the images.
        dataset_name: gets the classes and their ids as metadata; None keeps ids as they are.
        extra_annotation_keys: further keys of annotations to keep.

    Returns:
        One record per image, in the order of their ids.

    Raises:
        UserError: if the file cannot be read, is not in COCO's format, or has ids or classes that
            cannot be told apart.
        FileNotFoundError: if there is none.
    """
    file = read_annotations(json_file)
    wrong = [found for found in structure_findings(file) if found.severity == "error"]
    report(wrong, dataset_name or str(json_file))
    classes = sorted(file.categories, key=lambda item: id_order(item["id"]))
    numbers = {item["id"]: number for number, item in enumerate(classes)}
    if dataset_name is not None:
        metadata = MetadataCatalog.get(dataset_name)
        metadata.thing_classes = [item["name"] for item in classes]
        metadata.thing_dataset_id_to_contiguous_id = numbers
    objects = _objects(file, None if dataset_name is None else numbers, extra_annotation_keys or ())
    order = sorted(range(len(file.images)), key=lambda n: id_order(file.images[n]["id"]))
    _log.info("Loaded %d images in COCO format from %s", len(order), json_file)
    return [
        {
            "file_name": os.path.join(image_root, file.images[n]["file_name"]),
            "height": whole(file.images[n].get("height")),
            "width": whole(file.images[n].get("width")),
            "image_id": file.images[n]["id"],
            "annotations": objects[n],
        }
        for n in order
    ]


def _objects(
    file: AnnotationFile, numbers: Mapping[Any, int] | None, extra: Sequence[str]
) -> list[list[dict[str, Any]]]:
    """The annotations of every image, in Detectron2's format."""
    columns = file.columns
    kinds, usable, listed = columns.masks.kind, columns.masks.usable, columns.listed
    found: list[list[dict[str, Any]]] = [[] for _ in file.images]
    for row, item in enumerate(file.annotations):
        if not listed[row]:
            continue
        kept = {key: item[key] for key in ("bbox", *extra) if key in item}
        kept["iscrowd"] = is_crowd(item)
        kept["bbox_mode"] = BoxMode.XYWH_ABS
        category = item["category_id"]
        kept["category_id"] = category if numbers is None else numbers[category]
        if usable[row]:
            kept["segmentation"] = readable(item["segmentation"], kinds[row])
        if item.get("keypoints"):
            # COCO's keypoints are indices of pixels, its other coordinates are not.
            points = enumerate(item["keypoints"])
            kept["keypoints"] = [value if n % 3 == 2 else value + 0.5 for n, value in points]
        found[columns.image[row]].append(kept)
    return found


@contextlib.contextmanager
def loading_with_this() -> Iterator[None]:
    """While this is open, data sets registered by Detectron2's own functions are read here."""
    with mock.patch.object(detectron2_coco, "load_coco_json", load_coco):
        yield


def file_of(name: str, records: Sequence[Record]) -> AnnotationFile:
    """What a registered data set's annotation file says, or would say if it had one.

    Args:
        name: of the data set, which has been loaded.
        records: what was loaded.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file"):
        return read_annotations(metadata.json_file)
    annotations = [
        {**_written(item), "id": None, "image_id": number}
        for number, record in enumerate(records)
        for item in record.get("annotations", ())
    ]
    for number, item in enumerate(annotations):
        item["id"] = number
    images = [{**record, "id": number} for number, record in enumerate(records)]
    numbers = {item["category_id"] for item in annotations}
    classes = metadata.get("thing_classes") or [str(n) for n in range(max(numbers, default=0) + 1)]
    categories = [{"id": number, "name": title} for number, title in enumerate(classes)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    return AnnotationFile(f"data set '{name}'", content, written=False)


def _written(item: Mapping[str, Any]) -> dict[str, Any]:
    """An annotation in Detectron2's format as COCO writes it."""
    box, mode = item.get("bbox"), item.get("bbox_mode", BoxMode.XYWH_ABS)
    if box is not None and mode in (BoxMode.XYXY_ABS, BoxMode.XYXY_REL):
        box = list(box)
        box = [*box[:2], box[2] - box[0], box[3] - box[1]] if len(box) == 4 else box
    mask = item.get("segmentation")
    if isinstance(mask, np.ndarray):
        mask = mask_util.encode(np.asfortranarray(mask, np.uint8))
    return {**item, "bbox": box if box is None else list(box), "segmentation": mask}
