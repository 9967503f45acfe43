"""What the data of a search decide, of a classifier or of a detector."""

from __future__ import annotations

from detectron2.config import CfgNode

from detection.data.resolve import resolve_data
from search.classification.data import resolve_class_count, with_input_size
from search.runs.detector_backbone import searches_detector
from search.start.seed import search_space


def resolve_search_data(cfg: CfgNode) -> tuple[CfgNode, list[str]]:
    """The configuration of a search with names, classes, iterations and sizes settled.

    Returns:
        As :func:`detection.data.resolve.resolve_data`.

    Raises:
        UserError: if the data are not there, or it is not clear which are meant.
    """
    if searches_detector(cfg):
        return resolve_data(cfg)
    cfg, notes = resolve_class_count(cfg)
    if cfg.CLASSIFICATION.INPUT_SIZE:
        return cfg, notes
    space = search_space(cfg)
    cfg, note = with_input_size(cfg, space.input, f"search space '{space.name}'")
    return cfg, [*notes, note]
