"""Data sets are checked before anything is trained, so that mistakes are named at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from backbones.errors import UserError, first_of
from detection.data.annotations.boxes import box_findings
from detection.data.annotations.file import AnnotationFile, read_annotations, reading_once
from detection.data.annotations.records import Record, file_of, loading_with_this
from detection.data.annotations.shapes import area_findings, crowding_findings, mask_findings
from detection.data.annotations.structure import (
    Classes,
    class_findings,
    classes_in,
    object_findings,
    structure_findings,
)
from detection.data.findings import Finding, report
from detection.data.image_checks import Size, check_before_run
from detection.modeling.meta_arch import num_classes, num_classes_key, wants_masks

__all__ = [
    "Record",
    "annotation_findings",
    "check_class_count",
    "check_data_set",
    "check_registered",
    "check_same_classes",
    "check_test_sets",
    "data_findings",
    "image_files",
    "load_records",
]

PATH_FORM = (
    "annotation file:image folder, such as DATASETS.TRAIN photos/train.json:photos/train, or as a "
    "whole folder, DATA.ROOT photos"
)
"""How data sets are named that Detectron2 does not know, for messages."""

_MAX_FILES_LOOKED_UP = 1000

_said: set[tuple[str, str, Finding]] = set()

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
        with loading_with_this():
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
            f"({type(error).__name__}: {reason}); mend it or export it again"
        ) from None
    if not records:
        raise UserError(
            f"data set '{name}' is empty: '{where}' lists no images; check the file, or name "
            "another data set in DATASETS.TRAIN and DATASETS.TEST"
        )
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


def check_data_set(cfg: CfgNode, name: str, training: bool) -> list[Record]:
    """Loads a data set and insists on one that the model can be trained with or judged by.

    What is odd is said once in a process.

    Returns:
        The images, as :func:`load_records`.

    Raises:
        UserError: if the data set cannot be loaded, has another number of classes than the model,
            or for the first kind of error in its annotations or image files.
    """
    with reading_once():
        records = load_records(name)
        check_class_count(cfg, name)
        findings = data_findings(cfg, name, records, training)
    path = _annotation_file(name)
    report([found for found in findings if _is_new(name, path, found)], name)
    unreadable = cfg.DATALOADER.MAX_UNREADABLE_IMAGES if training else 0
    check_before_run(name, *image_files(records), unreadable=unreadable)
    return records


def data_findings(
    cfg: CfgNode, name: str, records: Sequence[Record], training: bool
) -> list[Finding]:
    """What is wrong or odd in a data set that is loaded.

    Args:
        cfg: the whole configuration.
        name: of the data set.
        records: its images.
        training: whether it is trained on, or else evaluated on.
    """
    return annotation_findings(cfg, file_of(name, records), training)


def annotation_findings(cfg: CfgNode, file: AnnotationFile, training: bool) -> list[Finding]:
    """What is wrong or odd in annotations, for the model of a configuration."""
    found = [*structure_findings(file), *object_findings(file, training), *box_findings(file)]
    if wants_masks(cfg):
        found += mask_findings(file, training and cfg.INPUT.MASK_FORMAT == "polygon")
    if not training:
        found += area_findings(file)
        found += crowding_findings(file, cfg.TEST.DETECTIONS_PER_IMAGE)
    return found


def _is_new(name: str, path: str, found: Finding) -> bool:
    """Whether it is an error, or an oddity that was not said yet."""
    key = (name, path, found)
    if found.severity == "oddity" and key in _said:
        return False
    _said.add(key)
    return True


def check_any_object(names: Sequence[str], images: int) -> None:
    """Insists on images to train on.

    Args:
        names: of the training sets.
        images: how many are left when those that cannot be trained on are left out.

    Raises:
        UserError: if there are none.
    """
    if not images:
        raise UserError(
            f"no image of {', '.join(names)} has an annotated object; add annotations, or set "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS False to train on empty images"
        )


def check_same_classes(names: Sequence[str]) -> None:
    """Insists, of data sets that are loaded, on the same classes in the same order.

    Raises:
        UserError: naming two that differ, and how.
    """
    first = _classes(names[0])
    for name in names[1:]:
        classes = _classes(name)
        if first is None or classes is None:
            continue
        findings = class_findings(classes, first, names[0])
        path = f"{_annotation_file(names[0])} and {_annotation_file(name)}"
        report([found for found in findings if _is_new(name, path, found)], name)


def check_test_sets(cfg: CfgNode) -> None:
    """Loads every test set once, since a mistake would otherwise show after the training.

    Raises:
        UserError: if one of them cannot be loaded, does not fit the model, or has other classes
            than the training set, where that is there.
    """
    for name in cfg.DATASETS.TEST:
        check_data_set(cfg, name, training=False)
    for name in cfg.DATASETS.TRAIN[:1]:
        known = name in DatasetCatalog.list()
        if cfg.DATASETS.TEST and known and (_classes(name) or _read_classes(name)):
            check_same_classes([name, *cfg.DATASETS.TEST])


def image_files(records: Sequence[Record]) -> tuple[list[str], list[Size | None]]:
    """The image files of records, and the sizes that these say."""
    files = [record for record in records if "file_name" in record]
    sizes = [
        (record["width"], record["height"]) if {"width", "height"} <= record.keys() else None
        for record in files
    ]
    return [str(record["file_name"]) for record in files], sizes


def _classes(name: str) -> Classes | None:
    """Names and ids of a data set's classes; None while it is not loaded."""
    metadata = MetadataCatalog.get(name)
    titles = metadata.get("thing_classes")
    if titles is None:
        return None
    ids = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    numbers = {number: value for value, number in ids.items()}
    return [(title, numbers.get(number)) for number, title in enumerate(titles)]


def _read_classes(name: str) -> bool:
    """Reads the classes of a data set that an evaluation names, but need not have."""
    path = MetadataCatalog.get(name).get("json_file")
    try:
        classes = classes_in(read_annotations(path)) if path else []
    except (UserError, OSError, TypeError):
        return False
    metadata = MetadataCatalog.get(name)
    if classes:
        metadata.thing_classes = [title for title, _ in classes]
        metadata.thing_dataset_id_to_contiguous_id = {
            value: number for number, (_, value) in enumerate(classes)
        }
    return bool(classes)


def _annotation_file(name: str) -> str:
    return str(MetadataCatalog.get(name).get("json_file") or f"data set '{name}'")


def _check_registered_classes(name: str, path: str) -> None:
    """Insists, for a file that could not be loaded, on the classes that the name stands for."""
    registered = MetadataCatalog.get(name).get("thing_classes")
    try:
        listed = [title for title, _ in classes_in(read_annotations(path))]
    except (UserError, OSError, TypeError):
        return
    if registered is not None and listed != list(registered):
        raise UserError(
            f"data set '{name}': '{path}' has {_listed(listed)}, but the name stands for "
            f"{_listed(registered)}; name your own data by path, {PATH_FORM}"
        )


def _listed(classes: Sequence[object]) -> str:
    shown = first_of([str(title) for title in classes])
    plural = "es" if len(classes) > 1 else ""
    return f"{len(classes)} class{plural} ({shown})" if classes else "no classes"


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
    paths = [record.get("file_name") for record in records[::step]]
    missing = [path for path in paths if path and "://" not in path and not Path(path).is_file()]
    if missing:
        more = f" ({len(missing):,} of {len(paths):,} are missing)" if len(missing) > 1 else ""
        raise UserError(
            f"data set '{name}': no image '{missing[0]}', which '{_annotation_file(name)}' "
            f"lists{more}; check the image folder of the data set"
        )
