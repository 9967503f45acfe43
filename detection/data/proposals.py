"""Proposals of another run, for models that do not make their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from detectron2.structures import BoxMode

from backbones.errors import UserError
from detection.data.checks import Record
from detection.engine.plain_pickle import read_pickle

# Detectron's names of what Detectron2 calls otherwise.
_OLD_NAMES = {"indexes": "ids", "scores": "objectness_logits"}


def add_proposals(name: str, records: Sequence[Record], path: str) -> None:
    """Adds the proposals in ``path`` to the images, best first, as Detectron2 does.

    Args:
        name: of the data set, for error messages.
        records: in Detectron2's standard format.
        path: one of ``DATASETS.PROPOSAL_FILES_TRAIN`` and ``DATASETS.PROPOSAL_FILES_TEST``, a
            pickle of a dict: ``ids`` of the images, and for each ``boxes`` (N, 4) and
            ``objectness_logits`` (N); ``bbox_mode``, ``BoxMode.XYXY_ABS`` if missing.

    Raises:
        UserError: if the file is missing, holds anything else, or has none for an image.
    """
    found = read_pickle(path, "proposal file")
    if isinstance(found, Mapping):
        found = {_OLD_NAMES.get(key, key): value for key, value in found.items()}
    if not isinstance(found, Mapping) or not {"ids", "boxes", "objectness_logits"} <= set(found):
        raise UserError(
            f"the proposal file '{path}' holds no 'ids', 'boxes' and 'objectness_logits'; "
            "expected proposals as Detectron2 writes them (box_proposals.pkl)"
        )
    mode = found.get("bbox_mode", BoxMode.XYXY_ABS)
    position = {str(image): index for index, image in enumerate(found["ids"])}
    for record in records:
        image = str(record["image_id"])
        try:
            boxes, logits = (found[key][position[image]] for key in ("boxes", "objectness_logits"))
            order = np.argsort(logits)[::-1]
            record["proposal_boxes"] = boxes[order]
            record["proposal_objectness_logits"] = logits[order]
            record["proposal_bbox_mode"] = BoxMode(mode)
        except (IndexError, KeyError, TypeError, ValueError):
            raise UserError(
                f"data set '{name}': the proposal file '{path}' has none for the image {image}; "
                "make the proposals of this data set"
            ) from None
