"""Weights by timm's names of the hub and of folders, read as timm reads them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file

from backbones import UserError, create_model
from backbones.hub import find_on_hub

IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def write_folder(folder: Path, network: str = "semnasnet_075", **config: Any) -> torch.nn.Module:
    """What ``timm.models.save_for_hf`` writes, of a network of five classes."""
    torch.manual_seed(5)
    model = timm.create_model(network, num_classes=5).eval()
    timm.models.save_for_hf(model, folder, model_config={"num_classes": 5, **config})
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    path = tmp_path_factory.mktemp("hub")
    return path, write_folder(path)


def check(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(IMAGES), theirs(IMAGES), rtol=1e-5, atol=1e-6)


def test_a_folder_of_timms(folder: tuple[Path, torch.nn.Module]) -> None:
    """By the name of the model as in timm, which the configuration resolves, and as weights."""
    path, theirs = folder
    check(timm.create_model(f"local-dir:{path}", pretrained=True).eval(), theirs)
    check(create_model(f"local-dir:{path}", pretrained=True), theirs)
    wide = {"width_mult": 0.75, "num_classes": 5}
    check(create_model("mnasnet_a1", checkpoint_path=f"local-dir:{path}", **wide), theirs)
    check(create_model("mnasnet_a1", pretrained=f"local-dir:{path}", **wide), theirs)


def test_both_kinds_of_files(folder: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    path, theirs = folder
    (tmp_path / "config.json").write_bytes((path / "config.json").read_bytes())
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    check(create_model(f"local-dir:{tmp_path}", pretrained=True), theirs)
    other = timm.create_model("semnasnet_075", num_classes=5).eval()
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    check(create_model(f"local-dir:{tmp_path}", pretrained=True), other)


def test_another_number_of_classes(
    folder: tuple[Path, torch.nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    path, theirs = folder
    ours = create_model(f"local-dir:{path}", pretrained=True, num_classes=7)
    assert "has no classifier of 7 classes: it starts afresh" in caplog.text
    stem = theirs.conv_stem.weight
    assert torch.equal(ours.stem.conv.weight, stem)
    with pytest.raises(UserError, match="another number of classes"):
        create_model(f"local-dir:{path}", checkpoint_path=f"local-dir:{path}", num_classes=7)


def test_other_normalisation_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, "mobilenetv2_100")
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.5, 0.5, 0.5]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with caplog.at_level(logging.WARNING):
        create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert "were trained with mean (0.5, 0.5, 0.5)" in caplog.text


@pytest.mark.parametrize("mean", [[0.5], [0.5, 0.5, "grey"], 0.5, None])
def test_a_normalisation_that_is_not_three_figures_is_unknown(tmp_path: Path, mean: Any) -> None:
    write_folder(tmp_path, "mobilenetv2_100")
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = mean
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert find_on_hub(f"local-dir:{tmp_path}").normalisation is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local-dir:", "names nothing; expected local-dir:/path/to/folder"),
        ("hf-hub:", "names nothing; expected hf-hub:organisation/name"),
        ("local-dir:/nowhere/at/all", "no folder at '/nowhere/at/all'; check the path"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model("mnasnet_a1", checkpoint_path=name)


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no other file of weights; check the path"):
        find_on_hub(f"local-dir:{tmp_path}")
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    with pytest.raises(UserError, match="2 other files of weights; name one of them instead"):
        find_on_hub(f"local-dir:{tmp_path}")
    (tmp_path / "b.pth").unlink()
    (tmp_path / "config.json").write_text('{"architecture": "resnet50"}')
    with pytest.raises(UserError, match="of the network 'resnet50', which the zoo does not have"):
        create_model(f"local-dir:{tmp_path}", pretrained=True)


class Hub:
    """Stands for Hugging Face's hub: serves the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str, str | None]] = []

    def __call__(self, repository: str, file: str, revision: str | None = None) -> str:
        self.asked.append((repository, file, revision))
        if not (self.folder / file).is_file():
            raise EntryNotFoundError(file)
        return str(self.folder / file)


@pytest.mark.parametrize("scheme", ["hf-hub", "hf_hub"])
def test_the_hub(
    folder: tuple[Path, torch.nn.Module], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    path, theirs = folder
    hub = Hub(path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    check(create_model(f"{scheme}:org/name@v2", pretrained=True), theirs)
    assert ("org/name", "config.json", "v2") in hub.asked
    assert ("org/name", "model.safetensors", "v2") in hub.asked


def test_the_older_file_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = timm.create_model("mobilenetv2_050", num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"architecture": "mobilenetv2_050", "num_classes": 3}')
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", Hub(tmp_path))
    check(create_model("hf-hub:org/name", pretrained=True), theirs)


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    message = r"cannot fetch 'hf-hub:org/name' .*: no connection\); check .* local-dir:/path/to"
    with pytest.raises(UserError, match=message):
        create_model("mnasnet_a1", pretrained="hf-hub:org/name")
