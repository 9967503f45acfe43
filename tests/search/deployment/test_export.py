"""tools/export_model.py on small runs, and on what people mistype."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from backbones import create_model
from backbones.deployment.contract import Contract
from backbones.deployment.photos import network_input
from backbones.deployment.runtimes import open_exported
from backbones.exported import save_backbone
from backbones.weights import read_checkpoint, save_checkpoint
from detection.checkpointing import DetectorCheckpointer
from search.config import load_search_config
from search.deployment.images import photos_in, spread
from tests.backbones.deployment.small import small_architecture

TOOL = str(Path(__file__).resolve().parents[3] / "tools" / "export_model.py")


def export(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """The command, in this process."""
    monkeypatch.setattr(sys, "argv", ["export_model.py", *map(str, words)])
    runpy.run_path(TOOL, run_name="__main__")


@pytest.mark.slow
def test_a_classifier(
    classifier_run: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "c.onnx"
    words = ("--kind", "classifier", "--format", "onnx", "--output", path)
    export(monkeypatch, *words, classifier_run)
    printed = capsys.readouterr().out
    assert f"Compared on 16 images of '{images / 'val'}'" in printed
    assert f"Wrote {path} and {path.with_suffix('.json')}" in printed
    contract = Contract.load(path)
    assert (contract.kind, contract.precision, contract.labels) == (
        *("classifier", "fp32"),
        ("blue", "red"),
    )
    assert contract.architecture["name"] == "small"
    runtime = open_exported(path)
    network = create_model(
        classifier_run / "architecture.json",
        num_classes=2,
        checkpoint_path=classifier_run / "backbone.pth",
    ).eval()
    right = 0
    for file in photos_in(str(images / "val"), "it"):
        image = network_input(Image.open(file).convert("RGB"), contract.preprocessing)
        found = runtime.run({"image": image})["logits"]
        with torch.no_grad():
            expected = network(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
        right += contract.labels[found.argmax()] == file.parent.name
    top1 = contract.checks["top1"]
    assert top1 == {"images": 16, "pytorch": 100 * right / 16, "file": 100 * right / 16}


def test_a_backbone_with_its_preprocessing_inside(
    classifier_run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.pt2"
    words = ("--kind", "backbone", "--format", "torch", "--preprocessing", "inside")
    folder = images / "val" / "red"
    export(monkeypatch, *words, "--images", folder, "--output", path, classifier_run)
    contract = Contract.load(path)
    assert contract.preprocessing.mean is None
    outputs = contract.networks["network"].outputs
    assert [(spec.name, spec.stride) for spec in outputs] == [
        *(("res2", 4), ("res3", 8), ("res4", 16), ("res5", 32)),
    ]
    image = np.asarray(Image.open(folder / "0.png"), np.float32).transpose(2, 0, 1)[None]
    found = open_exported(path).run({"image": image})
    assert [array.shape[2] for array in found.values()] == [8, 4, 2, 1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pyramid", "backbone"])
def test_parts_of_a_detector(
    kind: str, detector_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BGR, as its configuration says, and at a size that it has not been traced at."""
    path = tmp_path / "p.onnx"
    export(monkeypatch, "--kind", kind, "--format", "onnx", "--output", path, detector_run)
    contract = Contract.load(path)
    assert contract.preprocessing.colour_order == "BGR"
    cfg = load_search_config(str(detector_run / "config.yaml"))
    assert contract.preprocessing.mean == pytest.approx(cfg.MODEL.PIXEL_MEAN)
    detector = build_model(cfg).eval()
    DetectorCheckpointer(detector).load(str(detector_run / "model_final.pth"))
    network = detector.backbone if kind == "pyramid" else detector.backbone.bottom_up
    image = torch.randn(2, 3, 128, 64)
    with torch.no_grad():
        expected = network(image)
    found = open_exported(path).run({"image": image.numpy()})
    assert list(found) == list(expected)
    assert len(found) == (5 if kind == "pyramid" else 4)
    for name, array in found.items():
        torch.testing.assert_close(torch.from_numpy(array), expected[name], rtol=1e-4, atol=1e-4)


def test_a_pyramid_that_was_never_trained_is_warned_of(
    detector_run: Path,
    classifier_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = read_checkpoint(detector_run / "model_final.pth")["model"]
    prefix = "backbone.bottom_up."
    alone = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    save_checkpoint(tmp_path / "b.pth", {"model": alone, "matching_heuristics": True})
    words = ("--kind", "pyramid", "--format", "torch", "--output", tmp_path / "p.pt2")
    export(monkeypatch, *words, "--weights", tmp_path / "b.pth", detector_run)
    assert "has no pyramid: its 8 tensors are random" in capsys.readouterr().out


@pytest.fixture
def wrong(classifier_run: Path, tmp_path: Path) -> dict[str, str]:
    """What stands in the commands below for files of a user."""
    folder = tmp_path / "given"
    save_backbone(
        folder / "bare",
        small_architecture(plain=True),
        {
            name: value
            for name, value in read_checkpoint(classifier_run / "backbone.pth")["model"].items()
            if not name.startswith("classifier.")
        },
    )
    (folder / "empty").mkdir()
    other = create_model("mobilenetv2_100", num_classes=2)
    save_checkpoint(folder / "other.pth", {"model": other.state_dict()})
    return {
        "RUN": str(classifier_run),
        "BARE": str(folder / "bare"),
        "OTHER": str(folder / "other.pth"),
        "EMPTY": str(folder / "empty"),
        "OUT": str(tmp_path / "out"),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("backbone onnx OUT/n.tflite RUN", "writes .onnx files; name it"),
        ("backbone torch OUT/n.pt2 --precision fp16 RUN", "use --format onnx or litert"),
        ("backbone onnx OUT/n.onnx nowhere", "unknown architecture 'nowhere'"),
        ("backbone onnx OUT/n.onnx EMPTY", "neither architecture.json nor config.yaml"),
        ("backbone onnx OUT/n.onnx --weights OTHER RUN", "belongs to another architecture"),
        ("classifier onnx OUT/n.onnx --weights OTHER RUN", "belongs to another architecture"),
        ("classifier onnx OUT/n.onnx BARE", "has no classifier; use --kind backbone"),
        ("pyramid onnx OUT/n.onnx RUN", "--kind pyramid needs a detector"),
        ("backbone onnx OUT/n.onnx OTHER", "is a checkpoint, which does not say"),
        ("backbone onnx OUT/n.onnx --precision int8 BARE", "images to calibrate on"),
        (
            "backbone onnx OUT/n.onnx --precision int8 --calibration EMPTY RUN",
            "--calibration is 'EMPTY', which has no images",
        ),
        ("backbone onnx OUT/n.onnx --images nowhere RUN", "--images is 'nowhere', which is no"),
        ("classifier onnx OUT/n.onnx --input-size 64 96 RUN", "use --input-size 64 64"),
        ("backbone onnx OUT/n.onnx --input-size 8 8 RUN", "expected 32 pixels or more"),
        ("classifier onnx OUT/n.onnx RUN SOLVER.NO_SUCH 3", "unknown key 'SOLVER.NO_SUCH'"),
        ("classifier onnx OUT/n.onnx RUN --weights nowhere.pth", "nowhere.pth"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    words: str,
    message: str,
    wrong: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in wrong.items():
        words, message = words.replace(name, value), message.replace(name, value)
    kind, file_format, output, *rest = words.split()
    with pytest.raises(SystemExit) as ending:
        export(monkeypatch, "--kind", kind, "--format", file_format, "--output", output, *rest)
    assert ending.value.code == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in captured.err + captured.out
    assert not Path(wrong["OUT"]).exists()


def test_images_are_spread_evenly(tmp_path: Path) -> None:
    assert spread(3, 10) == [0, 1, 2]
    assert spread(101, 3) == [0, 50, 100]
    for name in ("b/2.png", "a/1.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in photos_in(str(tmp_path), "it")] == ["1.JPG", "2.png"]


def test_the_contract_is_plain_json(
    classifier_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which a program in any language reads."""
    words = ("--kind", "backbone", "--format", "torch", "--output", tmp_path / "b.pt2")
    export(monkeypatch, *words, classifier_run)
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["preprocessing"]["resizing"]["rule"] == "none"
    assert written["networks"]["network"]["file"] == "b.pt2"
    assert written["checks"]["latency"]["device"]
    assert torch.__version__.startswith(written["versions"]["torch"])
