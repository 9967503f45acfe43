"""The made-up set is worth scoring, and the report says what was measured."""

from __future__ import annotations

import pytest

from backbones import UserError
from search.studies.benchmarks.coco_scoring import CLASSES, OBJECTS, made_up_set, scoring_report


def test_the_set_has_what_detectors_meet() -> None:
    annotations, results = made_up_set(images=50, detections=20)
    assert len(annotations["annotations"]) == 50 * OBJECTS
    assert len(results) == 50 * 20
    for box in [row["bbox"] for row in annotations["annotations"]]:
        assert min(box) >= 0
        assert box[0] + box[2] <= 640
    areas = [row["area"] for row in annotations["annotations"]]
    for low, high in ((0, 32**2), (32**2, 96**2), (96**2, 640**2)):
        assert sum(low < area < high for area in areas) > 0.1 * len(areas)
    assert {row["category_id"] for row in results} <= set(range(1, CLASSES + 1))


def test_both_backends_agree_on_it() -> None:
    report = scoring_report(images=40, detections=100)
    assert report["largest_difference"] < 1e-6
    assert 0 < report["AP"] < 100
    assert report["ratio"] == report["seconds"]["pycocotools"] / report["seconds"]["faster"]
    with pytest.raises(UserError, match="--detections 0"):
        scoring_report(40, 0)
