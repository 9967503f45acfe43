"""A run's folder becomes a model that others load, by the function and by the tool."""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import yaml
from PIL import Image

import backbones
from backbones import UserError
from backbones.exported import save_backbone
from backbones.network import build_classifier
from backbones.sharing import upload
from search.runs.sharing import share

ROOT = Path(__file__).resolve().parents[3]
SMALL = backbones.load_architecture("spnas_100").scaled(0.25)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes in the usual layout."""
    folder = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            place = folder / split / label
            place.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(place / "one.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The folder of a classifier's run, as the tools leave it."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    save_backbone(folder, SMALL, build_classifier(SMALL, 2).state_dict())
    config = {
        "CLASSIFICATION": {"DATASET": str(images), "INPUT_SIZE": 96, "CROP_PCT": 1.0},
        "MODEL": {"SPNAS": {"ARCH": str(folder / "architecture.json")}},
        "OUTPUT_DIR": str(folder),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    results = {"classification": {"val": {"top1": 75.0}, "params": 1_000_000}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_classifier(run: Path, tmp_path: Path) -> None:
    folder = share(run, tmp_path / "mine", license="mit")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    expected = backbones.create_model(
        run / "architecture.json", checkpoint_path=run / "backbone.pth", num_classes=2
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), expected(IMAGES))
    config = timm.data.resolve_data_config(model=model)
    assert config["input_size"] == (3, 96, 96) and config["crop_pct"] == 1.0
    assert json.loads((folder / "config.json").read_text())["label_names"] == ["cat", "dog"]
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.license == "mit" and card.data.model_name == "mine"
    assert [r.metric_value for r in card.data.eval_results] == [75.0]
    told = [path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors"]
    assert not [text for text in told if str(run) in text or str(tmp_path.parent) in text]
    assert yaml.safe_load((folder / "config.yaml").read_text())["OUTPUT_DIR"] == "output"


def test_the_backbone_of_a_search_on_a_detector(run: Path, tmp_path: Path) -> None:
    """It has the detector's scores, and nothing of a classifier."""
    folder = tmp_path / "run"
    folder.mkdir()
    state = torch.load(run / "backbone.pth")["model"]
    trunk = {name: value for name, value in state.items() if name.startswith(("stem.", "layers."))}
    save_backbone(folder, SMALL, trunk)
    scores = {"digits_val": {"bbox": {"AP": 48.0, "APs": 51.0}}}
    results = {
        "search": {"predicted_runtime": 14.5, "latency_table": "xeon", "unit": "ms"},
        "detection": {"scores": scores, "cost": {"input_size": [96, 96]}},
    }
    (folder / "results.json").write_text(json.dumps(results))
    shared = share(folder, tmp_path / "m")
    features = backbones.from_pretrained(shared, features_only=True).eval()
    expected = backbones.create_model(
        run / "architecture.json", features_only=True, checkpoint_path=run / "backbone.pth"
    ).eval()
    with torch.no_grad():
        for one, other in zip(features(IMAGES), expected(IMAGES), strict=True):
            torch.testing.assert_close(one, other)
    card = huggingface_hub.ModelCard.load(shared / "README.md")
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert {r.metric_name: r.metric_value for r in card.data.eval_results} == {
        "box AP": 48.0,
        "box AP, small objects": 51.0,
    }
    assert "| predicted | 14.50 ms | xeon | – |" in card.text


def test_labels_are_those_of_the_data_that_are_at_hand(
    run: Path, tmp_path: Path, images: Path
) -> None:
    gone = tmp_path / "run"
    gone.mkdir()
    for name in ("architecture.json", "backbone.pth"):
        (gone / name).write_bytes((run / name).read_bytes())
    for dataset in (tmp_path / "nowhere", None):
        config = {"CLASSIFICATION": {"DATASET": dataset and str(dataset)}}
        (gone / "config.yaml").write_text(yaml.safe_dump(config))
        folder = share(gone, tmp_path / "m", replace=True)
        assert "label_names" not in json.loads((folder / "config.json").read_text())
    # of other data, under the same name
    torch.save({"model": build_classifier(SMALL, 3).state_dict()}, gone / "three.pth")
    (gone / "config.yaml").write_text(yaml.safe_dump({"CLASSIFICATION": {"DATASET": str(images)}}))
    folder = share(gone, tmp_path / "m", replace=True, weights=str(gone / "three.pth"))
    found = json.loads((folder / "config.json").read_text())
    assert found["num_classes"] == 3 and "label_names" not in found


def tool(**options: Any) -> None:
    usual = {"name": "", "license": "mit", "weights": "", "push": "", "private": False}
    main = runpy.run_path(str(ROOT / "tools" / "publish_model.py"))["main"]
    main(argparse.Namespace(**{**usual, "replace": False, **options}))


def test_the_tool(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written before the upload is known to be possible."""
    output = tmp_path / "m"
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="without a login"):
        tool(run=run, output=output, push="you/it")
    assert not output.exists()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    pushed: list[Any] = []

    def push(folder: Path, repository: str, **options: Any) -> str:
        pushed.append((folder, repository, options))
        return "https://hub/you/it"

    monkeypatch.setattr(upload, "push_to_hub", push)
    tool(run=run, output=output, push="you/it", private=True)
    assert pushed == [(output, "you/it", {"private": True, "replace": False})]
    assert "hf-hub:you/it" in (output / "README.md").read_text()
    told = capsys.readouterr().out.splitlines()
    assert told[0] == (
        f"Wrote to {output}: README.md, architecture.json, config.json, config.yaml, "
        "model.safetensors"
    )
    assert told[1] == "Uploaded to https://hub/you/it"


def test_mistakes(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no weights at '.*nowhere\.pth'; name the file: --weigh"):
        share(run, tmp_path / "m", weights=str(tmp_path / "nowhere.pth"))
    other = tmp_path / "other.pth"
    torch.save({"model": build_classifier(SMALL.scaled(2), 2).state_dict()}, other)
    with pytest.raises(UserError, match="belongs to another architecture"):
        share(run, tmp_path / "m", weights=str(other))
    assert not (tmp_path / "m").exists()
    with pytest.raises(UserError, match="is the run itself; name another folder"):
        share(run, run / ".." / run.name, replace=True)
    share(run, tmp_path / "m")
    with pytest.raises(UserError, match=r"holds a model already .*--replace"):
        share(run, tmp_path / "m")
