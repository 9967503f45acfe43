"""The objects of one image as a model trains on them, whether or not all of them have a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import annotations_to_instances
from detectron2.structures import Instances

HAS_MASK = "gt_has_mask"
"""Field of the objects' instances; proposals get it by its name, as all beginning with ``gt_``."""


def masked_instances(
    annotations: Sequence[dict[str, Any]],
    image_size: tuple[int, int],
    mask_format: str,
    recompute_boxes: bool = False,
) -> Instances:
    """Detectron2's ``annotations_to_instances`` for objects of which some have no mask.

    An object whose box is empty is left out. One without a mask, or whose mask has no pixel, stays
    with its box, and with False in :data:`HAS_MASK`.

    Args:
        annotations: transformed as their image.
        image_size: height and width.
        mask_format: ``INPUT.MASK_FORMAT``; an image with a run-length encoded mask gets bitmaps.
        recompute_boxes: take boxes from masks where there are any, as after a crop.

    Returns:
        With ``gt_masks``, which are empty where there is none, unless there is no object.
    """
    present = torch.tensor(["segmentation" in item for item in annotations], dtype=torch.bool)
    polygons = all(isinstance(item.get("segmentation", []), list) for item in annotations)
    form = "polygon" if mask_format == "polygon" and polygons else "bitmask"
    nothing = [np.zeros(6)] if form == "polygon" else np.zeros(image_size, np.uint8)
    whole = [
        item if "segmentation" in item else {**item, "segmentation": nothing}
        for item in annotations
    ]
    found = annotations_to_instances(whole, image_size, mask_format=form)
    if not len(found):
        return found
    if recompute_boxes:
        boxes = found.gt_masks.get_bounding_boxes().tensor
        found.gt_boxes.tensor[present] = boxes[present].to(found.gt_boxes.tensor)
    found.set(HAS_MASK, present & found.gt_masks.nonempty())
    kept: Instances = found[found.gt_boxes.nonempty(threshold=1e-5)]
    return kept
