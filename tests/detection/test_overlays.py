"""Pictures with boxes and masks as data: from predictions to the files that W&B leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO

from detection import visualization
from detection.engine.wandb_writer import WandbSettings, WandbWriter
from detection.evaluation import PREDICTIONS_FILE
from detection.overlays import overlays_of
from detection.samples import Picked, Quality, by_image, leave_samples
from tests.wandb_files import files, logged, wait_for_end

NAMES = {1: "box", 2: "disc", 3: "bar"}
IDS = {3: 1, 5: 2, 11: 3}
"""The numbers of the classes that the file has gaps between."""


@pytest.fixture
def truth(tiny_cfg: CfgNode) -> COCO:
    return COCO(MetadataCatalog.get("tiny_val").json_file)


def predicted(truth: COCO, masks: bool = True) -> list[dict[str, Any]]:
    """Every object of the first two images, moved by three pixels; one with a low score."""
    results = []
    for item in truth.dataset["annotations"]:
        if item["image_id"] > 101:
            continue
        x, y, width, height = item["bbox"]
        score = 0.2 if item["id"] == 2 else 0.5 + item["id"] / 100
        row = {"image_id": item["image_id"], "category_id": item["category_id"], "score": score}
        moved = np.roll(truth.annToMask(item), 3, 1)
        row["bbox"] = [x + 3, y, width, height]
        if masks:
            row["segmentation"] = encode(moved)
        results.append(row)
    return results


def encode(mask: np.ndarray) -> dict[str, Any]:
    from pycocotools import mask as mask_util

    code = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**code, "counts": code["counts"].decode()}


def painted(truth: COCO, image: int, shift: int, wanted: set[int]) -> np.ndarray:
    """Classes by pixel, by a loop over pycocotools' masks of the annotations."""
    items = truth.loadAnns(truth.getAnnIds(image))
    canvas = np.zeros(truth.annToMask(items[0]).shape, np.uint8)
    for item in items:
        if item["id"] in wanted:
            canvas[np.roll(truth.annToMask(item), shift, 1) > 0] = IDS[item["category_id"]]
    return canvas


def picked(truth: COCO, *images: int) -> list[Picked]:
    folder = Path(MetadataCatalog.get("tiny_val").json_file).parent
    quality = Quality(2, 1, 0)
    return [
        Picked("best", number, image, str(folder / truth.imgs[image]["file_name"]), quality)
        for number, image in enumerate(images, start=1)
    ]


def test_boxes_and_masks_are_those_of_pycocotools(truth: COCO) -> None:
    detected = by_image(predicted(truth))
    first, crowd, nothing = overlays_of("tiny_val", picked(truth, 100, 101, 105), detected)
    assert first.caption == "best 1: 0.jpg, F1 0.80" and dict(first.labels) == NAMES
    assert first.image.shape == (96, 72, 3)
    rows = truth.loadAnns(truth.getAnnIds(100))
    corners = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
    np.testing.assert_allclose(first.truth.boxes, corners)
    assert first.truth.classes == (1, 2, 3) and first.truth.scores == ()
    assert np.array_equal(first.truth.mask, painted(truth, 100, 0, {1, 2, 3}))
    # what has a low score is left out, and the best is drawn last
    np.testing.assert_allclose(first.found.boxes, np.add([corners[0], corners[2]], [3, 0, 3, 0]))
    assert (first.found.classes, first.found.scores) == ((1, 3), (0.51, 0.53))
    assert np.array_equal(first.found.mask, painted(truth, 100, 3, {1, 3}))
    assert np.array_equal(crowd.truth.mask, painted(truth, 101, 0, {4, 5, 6}))
    assert nothing.truth.boxes.shape == nothing.found.boxes.shape == (0, 4)


def test_a_large_image_is_shown_smaller(truth: COCO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detection.overlays.LONG_SIDE", 48)
    (small,) = overlays_of("tiny_val", picked(truth, 100), by_image(predicted(truth)))
    assert small.image.shape == (48, 36, 3) and visualization.LONG_SIDE == 1000
    (x, y, width, height) = truth.loadAnns([1])[0]["bbox"]
    np.testing.assert_allclose(small.truth.boxes[0] * 2, [x, y, x + width, y + height])
    assert small.truth.mask is not None and small.truth.mask.shape == (48, 36)
    whole = painted(truth, 100, 0, {1, 2, 3})
    assert abs(4 * (small.truth.mask == 3).sum() - (whole == 3).sum()) < 0.1 * (whole == 3).sum()


def test_without_masks_there_are_boxes_alone(truth: COCO) -> None:
    detected = by_image(predicted(truth, masks=False))
    (shown,) = overlays_of("tiny_val", picked(truth, 100), detected)
    assert shown.found.mask is None and len(shown.found.boxes) == 2
    assert shown.truth.mask is not None


def test_more_classes_than_a_byte_holds_have_boxes_alone(
    truth: COCO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detection.overlays._MOST_CLASSES", 2)
    (shown,) = overlays_of("tiny_val", picked(truth, 100), by_image(predicted(truth)))
    assert shown.found.mask is None and shown.truth.mask is None
    assert shown.truth.classes == (1, 2, 3)


def test_they_are_native_in_w_and_bs_files(tiny_cfg: CfgNode, truth: COCO, tmp_path: Path) -> None:
    """Ground truth and predictions, by name, as boxes and as masks, of the best and the worst."""
    folder = Path(tiny_cfg.OUTPUT_DIR)
    place = folder / "inference" / "tiny_val"
    place.mkdir(parents=True)
    (place / PREDICTIONS_FILE).write_text(json.dumps(predicted(truth)))
    tiny_cfg.TEST.NUM_VISUALIZATIONS = 1
    writer = WandbWriter(WandbSettings(mode="offline"), folder, {})
    leave_samples(tiny_cfg, writer)
    writer.close()
    wait_for_end(folder)
    found = logged(folder, "samples/tiny_val")
    assert found["_type"] == "images/separated" and found["count"] == 2
    captions = [caption.partition(":")[0] for caption in found["captions"]]
    assert captions == ["best 1", "worst 1"]
    boxes, masks = found["all_boxes"][0], found["all_masks"][0]
    assert set(boxes) == set(masks) == {"ground truth", "predictions"}
    content = json.loads((files(folder) / boxes["predictions"]["path"]).read_text())
    assert content["class_labels"] == {str(number): name for number, name in NAMES.items()}
    best = int(found["captions"][0].split()[2][0])  # "best 1: 0.jpg" is image 100
    rows = [row for row in predicted(truth) if row["image_id"] == 100 + best]
    rows = sorted((row for row in rows if row["score"] >= 0.5), key=lambda row: row["score"])
    assert len(content["box_data"]) == len(rows) > 0
    for shown, row in zip(content["box_data"], rows, strict=True):
        x, y, width, height = row["bbox"]
        expected = {"minX": x, "minY": y, "maxX": x + width, "maxY": y + height}
        assert shown["position"] == expected and shown["domain"] == "pixel"
        assert shown["class_id"] == IDS[row["category_id"]]
        assert shown["scores"] == {"score": row["score"]}
        assert shown["box_caption"] == f"{NAMES[shown['class_id']]} {row['score']:.2f}"
    truth_boxes = json.loads((files(folder) / boxes["ground truth"]["path"]).read_text())
    assert [box["box_caption"] for box in truth_boxes["box_data"]] == ["box", "disc", "bar"]
    with Image.open(files(folder) / masks["ground truth"]["path"]) as mask:
        ids = {item["id"] for item in truth.dataset["annotations"]}
        assert np.array_equal(np.asarray(mask), painted(truth, 100 + best, 0, ids))


def test_a_writer_that_is_off_costs_nothing(
    tiny_cfg: CfgNode, truth: COCO, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(tiny_cfg.OUTPUT_DIR) / "inference" / "tiny_val"
    place.mkdir(parents=True)
    (place / PREDICTIONS_FILE).write_text(json.dumps(predicted(truth)))
    monkeypatch.setattr("detection.overlays.overlays_of", lambda *_: pytest.fail("drawn"))
    leave_samples(tiny_cfg, WandbWriter(WandbSettings(enabled=False), tiny_cfg.OUTPUT_DIR))
    assert list((Path(tiny_cfg.OUTPUT_DIR) / "predictions" / "tiny_val").glob("best_1_*.jpg"))
