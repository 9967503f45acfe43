"""search → train → export → predict, in small, on the handwritten digits."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones import create_model
from backbones.deployment.contract import Contract
from backbones.deployment.formats import SUFFIXES
from backbones.deployment.photos import network_input
from backbones.deployment.runtimes import open_exported
from detection.data.digits import DigitsSize, prepare_digits
from detection.data.image_files import load_image
from search.deployment.images import photos_in

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SIZE = DigitsSize(scenes_train=1, scenes_val=1, images_train=200, images_val=100)
SHORT = [
    *("SOLVER.IMS_PER_BATCH", "20", "SOLVER.WARMUP_EPOCHS", "0.0", "CLASSIFICATION.EPOCHS", "1.0"),
    *("SEARCH.CALIBRATION_BATCHES", "2", "SEARCH.MEASURE", "False", "WANDB.ENABLED", "False"),
]


def tool(monkeypatch: pytest.MonkeyPatch, name: str, *words: object) -> None:
    """A command as a user types it, in this process."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, and a network searched and trained on them."""
    folder = tmp_path_factory.mktemp("digits")
    prepare_digits(folder / "datasets", SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(folder / "datasets"))
        patch.setenv("WANDB_MODE", "offline")
        search, trained = folder / "search", folder / "classifier"
        config = ("--config-file", "search/digits_small.yaml", "OUTPUT_DIR", search)
        tool(patch, "search_net.py", *config, *SHORT)
        found = ("MODEL.SPNAS.ARCH", search / "architecture.json")
        config = ("--config-file", "classification/digits_small.yaml", "OUTPUT_DIR", trained)
        tool(patch, "train_classifier.py", *config, *SHORT, *found)
    return folder


@pytest.mark.parametrize("file_format", ["onnx", "litert"])
@pytest.mark.parametrize("kind", ["backbone", "classifier"])
def test_a_file_agrees_with_pytorch_on_a_hundred_digits(
    kind: str, file_format: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(place / "datasets"))
    run, path = place / "classifier", place / f"{kind}{SUFFIXES[file_format]}"  # type: ignore[index]
    words = ("--kind", kind, "--format", file_format, "--output", path)
    tool(monkeypatch, "export_model.py", *words, run)
    contract = Contract.load(path)
    whole = {"checkpoint_path": run / "backbone.pth", "num_classes": 10}
    network = create_model(run / "architecture.json", **whole).eval()  # type: ignore[arg-type]
    runtime = open_exported(path)
    photos = photos_in(str(place / "datasets" / "digits" / "classification" / "val"), "digits")
    assert len(photos) == 100
    pairs = []
    for photo in photos:
        image = network_input(load_image(str(photo)), contract.preprocessing, (32, 32))
        with torch.no_grad():
            maps = network.forward_intermediates(torch.from_numpy(image))[1:]
            wanted = maps if kind == "backbone" else [network(torch.from_numpy(image))]
        pairs.append((list(runtime.run({"image": image}).values()), wanted))
    for index, spec in enumerate(contract.networks["network"].outputs):
        found = np.concatenate([row[index] for row, _ in pairs])
        expected = np.concatenate([row[index].numpy() for _, row in pairs])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * abs(expected).max())
        assert spec.stride in (None, 4, 8, 16, 32)
    if kind == "classifier":
        assert contract.labels == tuple("0123456789")
        predicted = [found[0].argmax() for found, _ in pairs]
        right = sum(
            contract.labels[one] == photo.parent.name
            for one, photo in zip(predicted, photos, strict=True)
        )
        assert contract.checks["top1"]["file"] == pytest.approx(right)
