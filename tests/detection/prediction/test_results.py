"""Results in COCO's formats, read back by pycocotools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from backbones import UserError
from detection.evaluation import PREDICTIONS_FILE
from detection.export.postprocess import Detections
from detection.prediction.drawing import Drawings, draw_detections
from detection.prediction.results import CocoResults, read_truth

IMAGE = np.full((40, 60, 3), 255, np.uint8)


def some(masks: bool = True) -> Detections:
    pixels = np.zeros((2, 40, 60), bool)
    pixels[0, 5:20, 10:30] = True
    pixels[1, 0:3, 0:3] = True
    return Detections(
        np.array([[10, 5, 30, 20], [0, 0, 3, 3]], "f4"),
        np.array([0.9, 0.2], "f4"),
        np.array([2, 0]),
        pixels if masks else None,
    )


def test_both_files(tmp_path: Path) -> None:
    results = CocoResults(("cat", "dog", "hen"))
    results.add(Path("photos/one.jpg"), IMAGE, some())
    results.add(Path("photos/two.jpg"), IMAGE, some().chosen(np.zeros(2, bool)))
    results.write(tmp_path)
    coco = COCO(str(tmp_path / "predictions.json"))
    assert [image["file_name"] for image in coco.loadImgs([1, 2])] == [
        "photos/one.jpg",
        "photos/two.jpg",
    ]
    assert [item["name"] for item in coco.loadCats(coco.getCatIds())] == ["cat", "dog", "hen"]
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert first["category_id"] == 3
    assert first["bbox"] == [10, 5, 20, 15]
    assert first["area"] == 300
    assert first["score"] == pytest.approx(0.9)
    assert coco.annToMask(first).astype(bool).tolist() == some().masks[0].tolist()  # type: ignore[index]
    assert second["area"] == 9
    assert coco.getAnnIds(imgIds=2) == []
    plain = json.loads((tmp_path / PREDICTIONS_FILE).read_text())
    assert [item["image_id"] for item in plain] == [1, 1]
    assert mask_util.decode(plain[0]["segmentation"]).sum() == 300
    assert COCO.loadRes(coco, str(tmp_path / PREDICTIONS_FILE)).getAnnIds() == [1, 2]


def test_boxes_alone_and_classes_without_names() -> None:
    results = CocoResults(())
    results.add(Path("one.jpg"), IMAGE, some(masks=False))
    content = results.content()
    assert [item["area"] for item in content["annotations"]] == [300, 9]
    assert "segmentation" not in content["annotations"][0]
    assert content["categories"] == [{"id": 1, "name": "1"}, {"id": 3, "name": "3"}]


def truth_as_found(truth: dict[str, Any], image: dict[str, Any], classes: list[int]) -> Detections:
    """The annotations of an image, as a detector that sees everything would give them."""
    mine = [
        item
        for item in truth["annotations"]
        if item["image_id"] == image["id"] and not item["iscrowd"]
    ]
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    boxes = np.array([item["bbox"] for item in mine], "f4").reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    kinds = np.array([classes.index(item["category_id"]) for item in mine], int)
    masks = [coco.annToMask(item).astype(bool) for item in mine]
    shape = (len(mine), image["height"], image["width"])
    return Detections(boxes, np.ones(len(mine), "f4"), kinds, np.array(masks, bool).reshape(shape))


def test_ids_and_scores_by_an_annotation_file(tiny_coco: Path) -> None:
    truth = json.loads(tiny_coco.read_text())
    results = CocoResults(("box", "disc", "bar"), read_truth(str(tiny_coco)))
    for image in truth["images"][1:4]:
        pixels = np.zeros((image["height"], image["width"], 3), "u1")
        found = truth_as_found(truth, image, [3, 5, 11])
        results.add(tiny_coco.parent / image["file_name"], pixels, found)
    assert [image["id"] for image in results.images] == [101, 102, 103]
    assert {item["category_id"] for item in results.results} == {3, 5, 11}
    assert {task: scores["AP"] for task, scores in results.scores().items()} == {
        "bbox": 100,
        "segm": 100,
    }
    with pytest.raises(UserError, match=r"has no image 'other\.jpg'"):
        results.add(Path("other.jpg"), IMAGE, some())


def test_annotations_of_other_classes(tiny_coco: Path, tmp_path: Path) -> None:
    truth = read_truth(str(tiny_coco))
    with pytest.raises(UserError, match="has the classes box, disc, bar, and the model was"):
        CocoResults(("box", "disc"), truth)
    results = CocoResults((), {**truth, "categories": truth["categories"][:1]})
    image = truth["images"][0]
    pixels = np.zeros((image["height"], image["width"], 3), "u1")
    with pytest.raises(UserError, match="finds class 3, and the annotation file has 1"):
        results.add(Path(image["file_name"]), pixels, some(masks=False))
    with pytest.raises(UserError, match="no annotation file"):
        read_truth(str(tmp_path / "none.json"))


@pytest.mark.parametrize("masks", [True, False])
def test_drawings_show_what_counts(masks: bool, tmp_path: Path) -> None:
    nothing = draw_detections(IMAGE, some(masks), ("cat", "dog", "hen"), confidence=0.95)
    assert (nothing == 255).all()
    drawn = draw_detections(IMAGE, some(masks), ("cat", "dog", "hen"), confidence=0.5)
    again = draw_detections(IMAGE, some(masks), ("cat", "dog", "hen"), confidence=0.5)
    assert drawn.shape == IMAGE.shape
    assert (drawn[5:20, 10:30] != 255).any()
    assert np.array_equal(drawn, again)
    pictures = Drawings(tmp_path)
    for photo in ("a/one.jpg", "b/one.png", "b/One.jpg"):
        pictures.write(Path(photo), drawn)
    assert {path.name for path in tmp_path.iterdir()} == {"one.jpg", "one_2.jpg", "One_3.jpg"}
