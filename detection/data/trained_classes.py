"""The classes that a detector was trained on go with its weights, and are those it is judged by."""

from __future__ import annotations

import itertools

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from backbones.errors import UserError


def trained_classes(cfg: CfgNode) -> list[str]:
    """Names of the classes of the first training set, in their order; empty if it has none."""
    names = cfg.DATASETS.TRAIN
    classes = (MetadataCatalog.get(names[0]).get("thing_classes") if names else None) or ()
    return [str(title) for title in classes]


def check_classes_of_weights(cfg: CfgNode, trained: object) -> None:
    """Insists, of test sets that are loaded, on the classes that the weights were trained on.

    Args:
        cfg: the whole configuration.
        trained: names that a checkpoint has of them, in their order; None if it has none.

    Raises:
        UserError: naming the first class that differs.
    """
    if not isinstance(trained, list):
        return
    for name in cfg.DATASETS.TEST:
        ours = [str(title) for title in MetadataCatalog.get(name).get("thing_classes") or trained]
        for number, (one, other) in enumerate(itertools.zip_longest(ours, trained)):
            if one != other:
                raise UserError(
                    f"class {number} of data set '{name}' is '{one}', and '{other}' of the weights "
                    f"'{cfg.MODEL.WEIGHTS}'; a detector counts classes in the order of their ids: "
                    "write the same classes in the same order into the annotation file"
                )
