"""What the data of a search decide, of a classifier or of a detector."""

from __future__ import annotations

from detectron2.config import CfgNode

from detection.data.resolve import resolve_data
from search.classification.data import resolve_class_count
from search.runs.detector_backbone import searches_detector


def resolve_search_data(cfg: CfgNode) -> tuple[CfgNode, list[str]]:
    """The configuration of a search with names, classes and iterations settled.

    Returns:
        As :func:`detection.data.resolve.resolve_data`.

    Raises:
        UserError: if the data are not there, or it is not clear which are meant.
    """
    return resolve_data(cfg) if searches_detector(cfg) else resolve_class_count(cfg)
