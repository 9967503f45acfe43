"""Exported detectors in their engines against PyTorch, and beside nothing but NumPy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from backbones import UserError
from backbones.deployment.contract import Contract
from backbones.deployment.formats import Format
from detection.data.image_files import read_image
from detection.export.contracts import canvas_of
from detection.export.files import export_detector
from detection.prediction.predictor import CheckpointDetector, ExportedDetector, SplitDetector
from detection.prediction.results import CocoResults, read_truth
from tests.detection.export.conftest import MakeDetector
from tests.detection.export.test_postprocess import RETINANET, same
from tests.tiny_coco import ROOT

PAGE = ROOT / "docs" / "prediction.md"
LABELS = ("box", "disc", "bar")
BATCHED = ("TEST.DETECTIONS_PER_IMAGE", "12")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [("onnx", "tiny.onnx"), ("torch", "tiny.pt2"), ("litert", "tiny.tflite")],
)
def test_mask_rcnn(
    kind: Format,
    name: str,
    make_detector: MakeDetector,
    image: np.ndarray,
    tiny_coco: Path,
    tmp_path: Path,
) -> None:
    if kind == "litert":
        pytest.importorskip("litert_torch")
    cfg, model = make_detector(*BATCHED)
    size = (96, 96) if kind == "litert" else None
    contract = export_detector(
        cfg, model, tmp_path / name, kind, [image], labels=LABELS, input_size=size
    )
    stem, suffix = name.split(".")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *(name, f"{stem}.boxes.{suffix}", f"{stem}.masks.{suffix}", f"{stem}.json"),
        "postprocess",
    }
    assert Contract.load(tmp_path / name) == contract
    checks = contract.checks
    assert checks["detections"] == checks["found_again"] > 0
    assert set(checks["networks"]) == {"image", "boxes", "masks"}
    whole, exported = CheckpointDetector(cfg, model), ExportedDetector(tmp_path / name)
    split = SplitDetector(model, contract)
    assert exported.labels == split.labels == LABELS
    truth = read_truth(str(tiny_coco))
    before, after = CocoResults(LABELS, truth), CocoResults(LABELS, truth)
    for record in DatasetCatalog.get("tiny_val"):
        path = Path(record["file_name"])
        photo = read_image(str(path))
        expected, found = whole.predict(photo), exported.predict(photo)
        before.add(path, photo, expected)
        after.add(path, photo, found)
        same(found, split.predict(photo))
        if kind != "litert":  # whose padding reaches farther into the image
            same(found, expected)
    for task, scores in before.scores().items():
        assert after.scores()[task]["AP"] == pytest.approx(scores["AP"], abs=0.1)
    assert exported.predict(np.zeros((40, 60, 3), np.uint8)).boxes.shape[1] == 4


@pytest.mark.slow
def test_retinanet(make_detector: MakeDetector, image: np.ndarray, tmp_path: Path) -> None:
    cfg, model = make_detector(*RETINANET)
    export_detector(cfg, model, tmp_path / "tiny.onnx", "onnx", [image])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"tiny.onnx", "tiny.json", "postprocess"}
    exported = ExportedDetector(tmp_path / "tiny.onnx")
    assert not exported.has_masks
    for picture in (image, image[:60]):
        expected = CheckpointDetector(cfg, model).predict(picture)
        assert len(expected.boxes)
        same(exported.predict(picture), expected)


@pytest.mark.slow
def test_int8_and_the_folder_by_itself(
    make_detector: MakeDetector,
    image: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page's example, with ONNX Runtime and NumPy: no torch, nothing of the project."""
    cfg, model = make_detector(*BATCHED)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    contract = export_detector(
        *(cfg, model, tmp_path / "detector.onnx", "onnx", [image]),
        labels=LABELS,
        precision="int8",
        calibration=[image, image[::-1].copy()],
    )
    assert contract.precision == "int8"
    assert contract.checks["networks"]["image"]["agreement"]["mean"] < 0.5
    assert not list(elsewhere.iterdir())  # of what the quantiser writes in between
    np.save(tmp_path / "image.npy", image)
    (example,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    program = f"""
import sys
for name in ("torch", "detectron2", "detection", "backbones", "PIL"):
    sys.modules[name] = None
{example}
print(json.dumps([len(found.boxes), found.boxes.tolist(), list(found.masks.shape)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, boxes, shape = json.loads(done.stdout.splitlines()[-1])
    expected = ExportedDetector(tmp_path / "detector.onnx").predict(image)
    assert count == len(expected.boxes) > 0
    assert shape == [count, *image.shape[:2]]
    np.testing.assert_allclose(boxes, expected.boxes, atol=1e-3)


def test_a_detector_without_masks_has_two_files(
    make_detector: MakeDetector, image: np.ndarray, tmp_path: Path
) -> None:
    cfg, model = make_detector()
    export_detector(cfg, model, tmp_path / "tiny.pt2", "torch", [image], masks=False)
    exported = ExportedDetector(tmp_path / "tiny.json")
    assert not exported.has_masks
    assert exported.predict(image).masks is None
    content = json.loads((tmp_path / "tiny.json").read_text())
    for spoil, message in (
        (lambda part: part["detector"].pop("nms"), "lacks nms; export the detector again"),
        (lambda part: part["detector"]["boxes"].pop("size"), r"lacks boxes\.size"),
        (lambda part: part["networks"].pop("boxes"), "no file of the network 'boxes'"),
    ):
        spoiled = json.loads(json.dumps(content))
        spoil(spoiled)
        (tmp_path / "tiny.json").write_text(json.dumps(spoiled))
        with pytest.raises(UserError, match=message):
            ExportedDetector(tmp_path / "tiny.pt2")


@pytest.mark.slow
def test_nothing_is_left_of_what_cannot_be_exported(
    make_detector: MakeDetector, image: np.ndarray, tmp_path: Path
) -> None:
    cfg, model = make_detector("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "1.0")
    with pytest.raises(UserError, match="head of masks cannot be tried; name photos"):
        export_detector(cfg, model, tmp_path / "tiny.onnx", "onnx", [image])
    assert not list(tmp_path.iterdir())


def test_sizes_of_a_fixed_image(make_detector: MakeDetector) -> None:
    cfg, _ = make_detector("INPUT.MAX_SIZE_TEST", "1333")
    assert canvas_of(cfg, 32) == (1344, 1344)
    assert canvas_of(cfg, 32, (192, 256)) == (192, 256)
    with pytest.raises(UserError, match="--input-size is 100 128; expected multiples of 32"):
        canvas_of(cfg, 32, (100, 128))
    cfg.INPUT.MIN_SIZE_TEST = 0
    with pytest.raises(UserError, match="give --input-size HEIGHT WIDTH"):
        canvas_of(cfg, 32)
