"""Data sets are checked before anything is trained, so that mistakes are named at once."""

from __future__ import annotations

import difflib
import json
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from backbones.errors import UserError, first_of
from backbones.files import read_json
from detection.data.image_checks import check_before_run
from detection.modeling.meta_arch import num_classes, num_classes_key, wants_masks

Record = dict[str, Any]
"""One image in Detectron2's standard format."""

PATH_FORM = (
    "annotation file:image folder, such as DATASETS.TRAIN photos/train.json:photos/train, or as a "
    "whole folder, DATA.ROOT photos"
)
"""How data sets are named that Detectron2 does not know, for messages."""

_MAX_FILES_LOOKED_UP = 1000

# Keys of a record that are paths, and those of the folders that they are in.
_ROOTS = {
    "file_name": "image_root",
    "sem_seg_file_name": "sem_seg_root",
    "pan_seg_file_name": "panoptic_root",
}


def load_records(name: str) -> list[Record]:
    """Loads a registered data set, and sees that it has images and that they are there.

    Raises:
        UserError: if the name is unknown, the annotation file is missing or broken, the data set
            is empty, or an image is missing or, by its annotation file, outside the image folder.
    """
    check_registered(name)
    where = _annotation_file(name)
    try:
        records = list(DatasetCatalog.get(name))
    except FileNotFoundError as error:
        raise UserError(
            f"data set '{name}': no file '{error.filename or where}'; put it there, or set "
            "DETECTRON2_DATASETS to the folder of your data sets"
        ) from None
    except UserError:
        raise
    except (AssertionError, KeyError, RecursionError, TypeError, ValueError) as error:
        _check_registered_classes(name, where)
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise UserError(
            f"data set '{name}': the annotation file '{where}' is not valid COCO JSON "
            f"({type(error).__name__}: {reason}); mend it or make it again"
        ) from None
    if not records:
        raise UserError(
            f"data set '{name}' is empty: '{where}' lists no images; check the file, or name "
            "another data set in DATASETS.TRAIN and DATASETS.TEST"
        )
    _check_class_names(name)
    _check_places(name, records)
    _check_images(name, records)
    return records


def check_registered(name: str) -> None:
    """Insists that Detectron2 knows the data set.

    Raises:
        UserError: naming those that are called alike.
    """
    known = DatasetCatalog.list()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise UserError(
            f"unknown data set '{name}' in DATASETS; {hint}Your own COCO-format data are named by "
            f"path, {PATH_FORM}"
        )


def check_class_count(cfg: CfgNode, name: str) -> None:
    """Insists that the model has as many classes as the data set, once that is loaded.

    Raises:
        UserError: with both numbers and the key to change.
    """
    classes = MetadataCatalog.get(name).get("thing_classes")
    key = num_classes_key(cfg)
    if classes is None or key is None or len(classes) == num_classes(cfg):
        return
    raise UserError(
        f"{key} is {num_classes(cfg)}, but data set '{name}' has {_listed(classes)}; set {key} "
        f"{len(classes)}"
    )


def check_annotations(cfg: CfgNode, name: str, records: Sequence[Record]) -> None:
    """Insists on annotations that the model can be trained with and judged by.

    Raises:
        UserError: naming the first image with an unknown class, no box, or, if the model has a
            mask head, no mask of the image's size.
    """
    classes = MetadataCatalog.get(name).get("thing_classes")
    masks = wants_masks(cfg)
    for record in records:
        size = [record[key] for key in ("height", "width") if key in record]
        if not all(isinstance(side, numbers.Real) for side in size):
            raise UserError(
                f"data set '{name}': height and width of '{record['file_name']}' are {size}; "
                "expected numbers of pixels"
            )
        for annotation in record.get("annotations", ()):
            problem = _problem(annotation, classes, size if masks else None)
            if problem:
                which = _called(name, record, annotation)
                raise UserError(f"data set '{name}': {which} of '{record['file_name']}' {problem}")


def check_same_classes(names: Sequence[str]) -> None:
    """Insists, of data sets that are loaded, on the same classes in the same order.

    Raises:
        UserError: naming two that differ, and how.
    """
    first = MetadataCatalog.get(names[0]).get("thing_classes")
    for name in names[1:]:
        classes = MetadataCatalog.get(name).get("thing_classes")
        if first is None or classes is None or list(classes) == list(first):
            continue
        pairs = zip(first, classes, strict=False)
        differing = next((f"'{a}' and '{b}'" for a, b in pairs if a != b), "their numbers")
        raise UserError(
            f"the data sets '{names[0]}' with {_listed(first)} and '{name}' with "
            f"{_listed(classes)} differ in their classes, first in {differing}; a detector needs "
            "the same classes in the same order from both"
        )


def check_test_sets(cfg: CfgNode) -> None:
    """Loads every test set once, since a mistake would otherwise show after the training.

    Raises:
        UserError: if one of them cannot be loaded or does not fit the model.
    """
    for name in cfg.DATASETS.TEST:
        records = load_records(name)
        check_class_count(cfg, name)
        check_annotations(cfg, name, records)
        check_images(name, records)


def check_images(name: str, records: Sequence[Record]) -> None:
    """Insists on image files that can be read, of the sizes that the records say.

    Raises:
        UserError: with the first kind of fault, its count, first example and way out.
    """
    files = [record for record in records if "file_name" in record]
    sizes = [
        (record["width"], record["height"]) if {"width", "height"} <= record.keys() else None
        for record in files
    ]
    check_before_run(name, [str(record["file_name"]) for record in files], sizes)


def _called(name: str, record: Record, annotation: Mapping[str, Any]) -> str:
    """An annotation with its id, which Detectron2's records leave out."""
    path = MetadataCatalog.get(name).get("json_file")
    try:
        listed = read_json(path, "annotation")["annotations"] if path else []
    except UserError:  # read_json knows no nan, Detectron2's reader does
        listed = []
    wanted = record.get("image_id"), annotation.get("bbox")
    for item in listed:
        if (item["image_id"], item.get("bbox")) == wanted:
            return f"annotation {item.get('id')}"
    return "an annotation"


def _annotation_file(name: str) -> str:
    return str(MetadataCatalog.get(name).get("json_file") or f"data set '{name}'")


def _check_registered_classes(name: str, path: str) -> None:
    """Insists, for a file that could not be loaded, on the classes that the name stands for."""
    registered = MetadataCatalog.get(name).get("thing_classes")
    try:
        categories = read_json(path, "annotation")["categories"]
        listed = [item["name"] for item in sorted(categories, key=lambda item: item["id"])]
    except (UserError, KeyError, TypeError):
        return
    if registered is not None and listed != list(registered):
        raise UserError(
            f"data set '{name}': '{path}' has {_listed(listed)}, but the name stands for "
            f"{_listed(registered)}; name your own data by path, {PATH_FORM}"
        )


def _check_class_names(name: str) -> None:
    for title in MetadataCatalog.get(name).get("thing_classes") or ():
        if not isinstance(title, str):
            raise UserError(
                f"data set '{name}': a category of '{_annotation_file(name)}' has the name "
                f"{json.dumps(title)}; expected text in quotes"
            )


def _listed(classes: Sequence[object]) -> str:
    shown = first_of([str(title) for title in classes])
    return f"{len(classes)} classes ({shown})" if classes else "no classes"


def _problem(
    annotation: Mapping[str, Any], classes: Sequence[str] | None, mask_size: Sequence[Any] | None
) -> str | None:
    """What is wrong with an annotation.

    Args:
        annotation: in Detectron2's standard format.
        classes: of the data set; None if it has no list of them.
        mask_size: height and width that its mask has to have; None if no mask is needed.
    """
    if classes is not None and not 0 <= annotation["category_id"] < len(classes):
        return f"has class {annotation['category_id']}; expected 0 to {len(classes) - 1}"
    if "bbox" not in annotation:
        return "has no bbox; expected [x, y, width, height]"
    if not _is_box(annotation["bbox"]):
        return f"has the bbox {annotation['bbox']}; expected [x, y, width, height]"
    if mask_size is None:
        return None
    mask = annotation.get("segmentation")
    if mask is None:
        return "has no segmentation; add masks, or set MODEL.MASK_ON False to use boxes alone"
    if isinstance(mask, Mapping) and list(mask["size"]) != list(mask_size):
        return (
            f"has a mask of height and width {list(mask['size'])}, but the image has "
            f"{list(mask_size)}; use the annotation file that belongs to these images"
        )
    return None


def _is_box(box: Any) -> bool:
    """Four finite numbers, or five for a rotated box."""
    try:
        return len(box) in (4, 5) and all(map(math.isfinite, box))
    except TypeError:
        return False


def _check_places(name: str, records: Sequence[Record]) -> None:
    """Insists, where an annotation file names the images, on paths below the image folder.

    Data sets that are registered by a function of their own may have images anywhere.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file") is None:
        return
    for key, root_key in _ROOTS.items():
        root = metadata.get(root_key)
        for record in records if root is not None else ():
            if key in record and not _is_below(str(root), str(record[key])):
                raise UserError(
                    f"data set '{name}': the image {record.get('image_id')} of "
                    f"'{_annotation_file(name)}' has the file_name '{record[key]}', which leads "
                    f"out of the image folder '{root}'; write paths relative to that folder, or "
                    f"name the folder that holds all the images, {PATH_FORM}"
                )


def _is_below(root: str, path: str) -> bool:
    """Whether a path stays in a folder by its text; links in the folder are its owner's."""
    inside = path[len(root) :] if path.startswith(root) else path
    if ".." in Path(inside).parts:
        return False
    return "://" in root or Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))


def _check_images(name: str, records: Sequence[Record]) -> None:
    """Looks for the files, for an even sample of them where there are very many."""
    step = max(1, len(records) // _MAX_FILES_LOOKED_UP)
    for record in records[::step]:
        path = record.get("file_name")
        if path is not None and "://" not in path and not Path(path).is_file():
            raise UserError(
                f"data set '{name}': no image '{path}', which '{_annotation_file(name)}' lists; "
                "check the image folder of the data set"
            )
