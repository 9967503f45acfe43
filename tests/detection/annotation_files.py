"""A small annotation file to be spoiled by tests, without images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from detectron2.config import CfgNode, get_cfg
from pycocotools import mask as mask_util

from detection.config import add_spnas_config
from detection.data.annotations.file import AnnotationFile
from detection.data.checks import annotation_findings
from detection.data.findings import Finding

Content = dict[str, Any]
Annotation = dict[str, Any]

WIDTH, HEIGHT = 120, 90


def content(images: int = 8, masks: bool = True) -> Content:
    """Three objects an image, of three classes, with polygons in boxes of several shapes."""
    rng = np.random.default_rng(3)
    annotations = []
    for number in range(3 * images):
        w, h = (int(side) for side in rng.integers(12, 45, 2))
        x, y = int(rng.integers(0, WIDTH - w)), int(rng.integers(0, HEIGHT - h))
        item: Annotation = {
            "id": number + 1,
            "image_id": number // 3 + 1,
            "category_id": number % 3 + 1,
            "bbox": [x, y, w, h],
            "area": w * h,
            "iscrowd": 0,
        }
        if masks:
            item["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(item)
    return {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT}
            for n in range(1, images + 1)
        ],
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(("ant", "bee", "cow"))],
        "annotations": annotations,
    }


def spoilt(change: Callable[[Annotation], object], count: int = 2, masks: bool = True) -> Content:
    """The file with its first annotations changed."""
    found = content(masks=masks)
    for item in found["annotations"][:count]:
        change(item)
    return found


def rle(item: Annotation, compressed: bool = True) -> dict[str, Any]:
    """The box of an annotation as a run-length encoded mask."""
    x, y, w, h = item["bbox"]
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    if compressed:
        code = mask_util.encode(mask)
        return {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    changes = np.flatnonzero(np.diff(flat))
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(np.concatenate([[0], changes])).tolist()}


def findings(
    spoilt: Content, training: bool = True, masks: bool = True, **keys: Any
) -> dict[str, Finding]:
    """What is found, by the kind's title.

    Args:
        spoilt: of an annotation file.
        training: whether the model is trained on it.
        masks: whether the model has a mask head.
        keys: ``DETECTIONS`` and ``MASK_FORMAT``, where they are not as usual.
    """
    cfg: CfgNode = get_cfg()
    add_spnas_config(cfg)
    cfg.MODEL.MASK_ON = masks
    cfg.TEST.DETECTIONS_PER_IMAGE = keys.get("DETECTIONS", 100)
    cfg.INPUT.MASK_FORMAT = keys.get("MASK_FORMAT", "polygon")
    found = annotation_findings(cfg, AnnotationFile("spoilt.json", spoilt), training)
    assert len({finding.kind for finding in found}) == len(found)
    return {finding.kind: finding for finding in found}
