"""The best and the worst images of a test set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from PIL import Image

from detection.evaluation import PREDICTIONS_FILE
from detection.samples import Quality, leave_samples, qualities, rank


def iou(one: list[float], two: list[float]) -> float:
    width, height = (
        max(0, min(one[i] + one[i + 2], two[i] + two[i + 2]) - max(one[i], two[i])) for i in (0, 1)
    )
    both = width * height
    return both / (one[2] * one[3] + two[2] * two[3] - both)


def counted(objects: list[Any], found: list[Any]) -> tuple[int, int, int]:
    """The same by a plain loop, without crowds."""
    left, hits, wrong = list(objects), 0, 0
    for item in sorted(found, key=lambda item: -item["score"]):
        if item["score"] < 0.5:
            continue
        fits = [o for o in left if o["category_id"] == item["category_id"]]
        best = max(fits, key=lambda o: iou(item["bbox"], o["bbox"]), default=None)
        if best is not None and iou(item["bbox"], best["bbox"]) >= 0.5:
            left.remove(best)
            hits += 1
        else:
            wrong += 1
    return hits, len(left), wrong


def test_counts_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    objects = [
        {"image_id": int(rng.integers(20)), "category_id": int(rng.integers(2)),
         "bbox": [*rng.integers(0, 40, 2).tolist(), *rng.integers(10, 30, 2).tolist()]}
        for _ in range(80)
    ]  # fmt: skip
    found = [
        {**item, "score": float(rng.random()),
         "bbox": (np.array(item["bbox"]) + rng.integers(-3, 4, 4)).tolist()}
        for item in [*objects, *objects[:40]]
    ]  # fmt: skip
    answers = qualities(objects, found)
    for image, quality in answers.items():
        own = [[item for item in items if item["image_id"] == image] for items in (objects, found)]
        assert (quality.found, quality.missed, quality.wrong) == counted(*own)
    assert sum(quality.found for quality in answers.values()) > 20


def test_what_lies_in_a_crowd_is_no_mistake() -> None:
    crowd = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "iscrowd": 1}
    inside = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 5, 5], "score": 0.9}
    assert qualities([crowd], [inside]) == {1: Quality(0, 0, 0)}
    assert qualities([crowd], [{**inside, "category_id": 2}]) == {1: Quality(0, 0, 1)}


def test_order_from_best_to_worst() -> None:
    found = {"none": Quality(0, 3, 1), "one": Quality(1, 0, 0), "many": Quality(5, 0, 0),
             "half": Quality(1, 1, 1), "few": Quality(0, 1, 0)}  # fmt: skip
    assert [name for name, _ in rank(found)] == ["many", "one", "half", "few", "none"]
    assert found["half"].f1 == pytest.approx(0.5)  # precision and recall of a half


@pytest.fixture
def evaluated(tiny_cfg: CfgNode) -> CfgNode:
    """Predictions that are perfect in the first two images and miss all others."""
    truth = json.loads(Path(MetadataCatalog.get("tiny_val").json_file).read_text())
    results = [
        {"image_id": item["image_id"], "category_id": item["category_id"], "score": 0.9,
         "bbox": item["bbox"]}
        for item in truth["annotations"]
        if item["image_id"] in (100, 102)
    ]  # fmt: skip
    folder = Path(tiny_cfg.OUTPUT_DIR) / "inference" / "tiny_val"
    folder.mkdir(parents=True)
    (folder / PREDICTIONS_FILE).write_text(json.dumps(results))
    tiny_cfg.TEST.NUM_VISUALIZATIONS = 2
    return tiny_cfg


def test_pictures_and_their_list(evaluated: CfgNode) -> None:
    leave_samples(evaluated)
    folder = Path(evaluated.OUTPUT_DIR) / "predictions" / "tiny_val"
    content = json.loads((folder / "samples.json").read_text())
    best, worst = (
        [row for row in content["images"] if row["kind"] == kind] for kind in ("best", "worst")
    )
    assert {row["image"] for row in best} == {"0.jpg", "2.jpg"}
    assert [row["f1"] for row in best] == [1, 1] and [row["f1"] for row in worst] == [0, 0]
    assert content["facts"]["images"] == "6"
    for row in content["images"]:
        with Image.open(folder / row["picture"]) as picture:
            assert picture.width in (2 * 96, 2 * 72)
    # what an earlier evaluation left does not stay
    evaluated.TEST.NUM_VISUALIZATIONS = 1
    leave_samples(evaluated)
    assert len(list(folder.glob("*.jpg"))) == 2


def test_a_run_without_pictures_leaves_none(evaluated: CfgNode) -> None:
    evaluated.TEST.NUM_VISUALIZATIONS = 0
    leave_samples(evaluated)
    assert not (Path(evaluated.OUTPUT_DIR) / "predictions").exists()


def test_what_goes_wrong_is_said(evaluated: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    place = Path(evaluated.OUTPUT_DIR) / "inference" / "tiny_val" / PREDICTIONS_FILE
    place.write_text("[")
    leave_samples(evaluated)
    assert "The best and worst images could not be drawn: the predictions file" in caplog.text
