"""Registers the embedded data set with Detectron2 as ``digits_train`` and ``digits_val``.

Its masks are run-length encoded: set ``INPUT.MASK_FORMAT`` to ``"bitmask"``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from detection.data.annotations.records import load_coco
from detection.data.digits import digits_root, prepare_digits
from detection.data.digits_writer import CLASSES, SPLITS


def register_digits(root: str | os.PathLike[str] | None = None) -> None:
    """Registers both splits; the data set is made when one of them is first loaded.

    A repeated call is harmless; one with another folder moves the names there.

    Args:
        root: as for `detection.data.digits.digits_root`, which is asked now and not when loading.
    """
    folder = digits_root(root)
    for split in SPLITS:
        _register(f"digits_{split}", folder, split)


def _register(name: str, folder: Path, split: str) -> None:
    image_root = str(folder / split)
    json_file = str(folder / "annotations" / f"instances_{split}.json")
    if name in DatasetCatalog.list():
        if MetadataCatalog.get(name).get("json_file") == json_file:
            return
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)

    def load() -> list[dict[str, Any]]:
        prepare_digits(folder.parent)
        return load_coco(json_file, image_root, name)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        thing_classes=list(CLASSES),
        thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(CLASSES))},
        json_file=json_file,
        image_root=image_root,
        evaluator_type="coco",
    )
