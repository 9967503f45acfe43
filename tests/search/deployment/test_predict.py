"""tools/predict.py on detectors and classifiers, in PyTorch and exported, and on mistakes."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image

from search.deployment.prediction import open_predictor

TOOLS = Path(__file__).resolve().parents[3] / "tools"
FINDS = (
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", "7"),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", "20"),
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos, one of them turned, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    turned = Image.Exif()
    turned[274] = 6
    for index in range(3):
        pixels = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        options = {"exif": turned} if index == 1 else {}
        Image.fromarray(pixels).save(folder / f"{index}.jpg", **options)
    return folder


def call(monkeypatch: pytest.MonkeyPatch, tool: str, *words: object) -> int:
    """A command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", [tool, *map(str, words)])
    try:
        runpy.run_path(str(TOOLS / tool), run_name="__main__")
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


@pytest.mark.slow
def test_a_detector_and_its_export(
    detector_run: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same results and drawings of both, by commands alone."""
    exported = tmp_path / "files" / "tiny.onnx"
    words = ("--kind", "detector", "--format", "onnx", "--images", photos, "--output", exported)
    assert call(monkeypatch, "export_model.py", *words, detector_run, *FINDS) == 0
    assert "21 of PyTorch's 21 detections on 3 images" in capsys.readouterr().out
    contents = []
    for name, model, more in (
        ("checkpoint", detector_run / "model_final.pth", ["--opts", *FINDS]),
        ("file", exported, []),
    ):
        output = tmp_path / name
        assert call(monkeypatch, "predict.py", model, photos, "--output", output, *more) == 0
        assert "Wrote 21 detections on 3 images" in capsys.readouterr().out
        drawings = sorted((output / "drawings").iterdir())
        assert [path.name for path in drawings] == ["0.jpg", "1.jpg", "2.jpg"]
        contents.append(json.loads((output / "predictions.json").read_text()))
        assert json.loads((output / "coco_instances_results.json").read_text())
    before, after = contents
    assert before["images"] == after["images"]
    assert [image["height"] for image in after["images"]] == [64, 96, 64]
    assert len(before["annotations"]) == len(after["annotations"]) == 21
    for one, other in zip(before["annotations"], after["annotations"], strict=True):
        assert one["category_id"] == other["category_id"]
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=0.05)
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["segmentation"]["size"] == other["segmentation"]["size"]
        assert one["area"] == pytest.approx(other["area"], rel=0.02, abs=3)


def test_boxes_alone_above_a_score(
    detector_run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--predict", "boxes", "--no-drawings", "--output", tmp_path / "found")
    arguments = (detector_run, photos / "0.jpg", *words, "--confidence", "0.9", "--opts", *FINDS)
    assert call(monkeypatch, "predict.py", *arguments) == 0
    content = json.loads((tmp_path / "found" / "predictions.json").read_text())
    assert len(content["images"]) == 1
    assert all(item["score"] >= 0.9 for item in content["annotations"])
    assert not (tmp_path / "found" / "drawings").exists()
    (image,) = [np.asarray(Image.open(photos / "0.jpg"))]
    found = open_predictor(str(detector_run), options=FINDS, masks=False).predict(image)
    assert found.masks is None  # type: ignore[union-attr]


def test_a_classifier_and_its_export(
    classifier_run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = tmp_path / "files" / "tiny.onnx"
    words = ("--kind", "classifier", "--format", "onnx", "--output", exported, "--evaluate", "0")
    assert call(monkeypatch, "export_model.py", *words, classifier_run) == 0
    contents = []
    for name, model in (("run", classifier_run), ("file", exported)):
        output = tmp_path / name
        assert call(monkeypatch, "predict.py", model, photos, "--output", output) == 0
        content = json.loads((output / "predictions.json").read_text())
        with (output / "predictions.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 6
        assert [row["rank"] for row in rows] == ["1", "2"] * 3
        assert len(list((output / "drawings").iterdir())) == 3
        contents.append(content["images"])
    for one, other in zip(*contents, strict=True):
        assert one["file_name"] == other["file_name"]
        best, found = one["classes"][0], other["classes"][0]
        assert best["class"] == found["class"] != str(best["index"])
        assert best["probability"] == pytest.approx(found["probability"], abs=1e-4)
        assert sum(item["probability"] for item in one["classes"]) == pytest.approx(1)


def test_ap_by_an_annotation_file(
    detector_run: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the images that are named; most classes have no object there, and no AP."""
    things = [item for item in COCO_CATEGORIES if item["isthing"]]
    content = {
        "images": [
            {"id": 70 + index, "file_name": f"{index}.jpg", "height": 64, "width": 96}
            for index in range(3)
        ],
        "categories": [{"id": item["id"], "name": item["name"]} for item in things],
        "annotations": [
            {"id": 1, "image_id": 70, "category_id": 90, "bbox": [1, 2, 9, 9], "area": 81}
            | {"iscrowd": 0, "segmentation": [[1, 2, 10, 2, 10, 11, 1, 11]]}
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    words = ("--annotations", tmp_path / "truth.json", "--no-drawings", "--output", tmp_path / "o")
    arguments = (detector_run, photos / "0.jpg", photos / "2.jpg", *words, "--opts", *FINDS)
    assert call(monkeypatch, "predict.py", *arguments) == 0
    assert "| AP of" in capsys.readouterr().out
    scores = json.loads((tmp_path / "o" / "scores.json").read_text())
    assert scores["bbox"]["AP-person"] is None
    assert 0 <= scores["segm"]["AP"] == scores["segm"]["AP-toothbrush"]
    found = json.loads((tmp_path / "o" / "predictions.json").read_text())
    assert [image["id"] for image in found["images"]] == [70, 72]


def test_unreadable_images_are_listed(
    detector_run: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (photos / "0.jpg").write_bytes(b"no image")
    output = tmp_path / "found"
    assert call(monkeypatch, "predict.py", detector_run, photos, "--output", output) == 1
    assert "1 of 3 images could not be read" in capsys.readouterr().out
    (entry,) = json.loads((output / "unreadable_images.json").read_text())
    assert entry["image"] == str(photos / "0.jpg")
    assert len(json.loads((output / "predictions.json").read_text())["images"]) == 2
    words = (detector_run, photos / "0.jpg", "--output", output)
    assert call(monkeypatch, "predict.py", *words) == 2
    assert "none of the 1 images can be read" in capsys.readouterr().err


def test_mistakes_are_answered_in_one_line(
    detector_run: Path,
    classifier_run: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    empty, lonely = tmp_path / "empty", tmp_path / "lonely.onnx"
    empty.mkdir()
    lonely.write_bytes(b"")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"")
    damaged.with_suffix(".json").write_text("{")
    annotations = tmp_path / "none.json"
    for words, message in (
        ((detector_run, empty), "has no images"),
        ((detector_run, photos, "--confidence", "3"), "--confidence is 3; expected"),
        ((detector_run, photos, "--annotations", annotations), "no annotation file"),
        ((lonely, photos), "there is no contract"),
        ((damaged, photos), "is not valid JSON"),
        ((empty, photos), "name the folder of a search, a classifier or a detector"),
        ((classifier_run, photos, "--predict", "masks"), "is a classifier"),
        (
            (detector_run, photos, "--predict", "masks", "--opts", "MODEL.MASK_ON", "False"),
            "of a model without a mask head",
        ),
        (
            (detector_run, photos, "--opts", "MODEL.SPNAS.ARCH", "mobilenetv2_100"),
            "belongs to another architecture",
        ),
    ):
        output = tmp_path / "found"
        assert call(monkeypatch, "predict.py", "--output", output, *words) == 2, message
        errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert len(errors) == 1
        assert message in errors[0]
        assert not output.exists()
