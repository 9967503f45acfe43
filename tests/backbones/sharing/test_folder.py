"""The folder of a shared model: what is in it, and who can load it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file
from torch import nn

import backbones
from backbones import UserError
from backbones.network import build_classifier
from backbones.sharing.folder import save_pretrained
from backbones.trained import named_architecture, named_weights

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SMALL = backbones.load_architecture("spnas_100").scaled(0.25)
LABELS = ("cat", "dog", "ünit")

ALONE = """
import json, sys
sys.modules["backbones"] = None  # this project cannot be imported
sys.path = [path for path in sys.path if path != {root!r}]
import torch
images = torch.load({images!r})
with torch.no_grad():
    exported = torch.export.load({program!r}).module()(images)
    import timm
    found = timm.create_model("local-dir:" + {folder!r}, pretrained=True).eval()(images)
torch.save([exported, found], {outputs!r})
"""
"""Loads a ``torch.export`` of one network and the folder of another."""


def trained(name: str, classes: int, randomize: Callable[[nn.Module], None]) -> Any:
    """A network with random weights and statistics; a name of the zoo, or the small one."""
    architecture = SMALL if name == "small" else backbones.load_architecture(name)
    model = build_classifier(architecture, classes)
    randomize(model)
    return model.eval()


@pytest.fixture
def small(tmp_path: Path, randomize: Callable[[nn.Module], None]) -> tuple[Path, Any]:
    model = trained("small", 3, randomize)
    return save_pretrained(tmp_path / "m", SMALL, model.state_dict(), labels=LABELS), model


@torch.no_grad()
def check(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.eval()(IMAGES), other.eval()(IMAGES), rtol=1e-5, atol=1e-5)


def test_files(small: tuple[Path, Any]) -> None:
    folder, model = small
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "architecture.json", "config.json", "model.safetensors"),
    }
    weights = load_file(folder / "model.safetensors")
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    assert backbones.Architecture.load(folder / "architecture.json") == SMALL
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "spnas_searched" and config["num_classes"] == 3
    assert config["label_names"] == list(LABELS)
    assert config["model_args"]["architecture"] == SMALL.to_dict()
    assert config["pretrained_cfg"]["mean"] == list(SMALL.input.mean)


def test_the_card_says_how_it_is_loaded(small: tuple[Path, Any]) -> None:
    """Its Python is right but for the repository."""
    folder, model = small
    text = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code.replace("hf-hub:USER/NAME", f"local-dir:{folder}"), found)
    check(found["model"], model)
    assert found["features"].feature_info.reduction() == [2, 4, 8, 16, 32]
    assert '`backbones.from_pretrained("USER/NAME")`' in text


def test_loaders(small: tuple[Path, Any]) -> None:
    folder, model = small
    check(backbones.from_pretrained(folder), model)
    check(timm.create_model(f"local-dir:{folder}", pretrained=True), model)
    weights = folder / "model.safetensors"
    check(backbones.create_model(folder / "architecture.json", num_classes=3,
                                 checkpoint_path=weights), model)  # fmt: skip
    assert named_architecture(str(folder)) == SMALL
    assert named_weights(str(folder), "SEARCH.START") == str(weights)
    expected = backbones.create_model(
        folder / "architecture.json", features_only=True, checkpoint_path=weights
    ).eval()
    with torch.no_grad():
        for features in (
            backbones.from_pretrained(folder, features_only=True).eval(),
            timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True).eval(),
        ):
            for one, other in zip(features(IMAGES), expected(IMAGES), strict=True):
                torch.testing.assert_close(one, other)
    other = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=8, in_chans=1)
    assert other(IMAGES[:, :1]).shape == (2, 8)
    torch.testing.assert_close(other.stem.conv.weight, model.stem.conv.weight.sum(1, True))


def test_the_hub(small: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both loaders ask for files by name; a folder stands for the hub."""
    folder, model = small

    def download(repo_id: str, filename: str, **_: Any) -> str:
        assert repo_id == "you/it"
        if not (folder / filename).is_file():
            raise EntryNotFoundError(filename)
        return str(folder / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    check(backbones.from_pretrained("you/it"), model)
    check(timm.create_model("hf-hub:you/it", pretrained=True), model)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("mobilenetv3_large_100", "mobilenetv3_large_100"), ("mnasnet_a1", "semnasnet_100")],
)
def test_what_timm_has_is_written_as_timms(
    name: str, theirs: str, tmp_path: Path, randomize: Callable[[nn.Module], None]
) -> None:
    model = trained(name, 3, randomize)
    folder = save_pretrained(tmp_path / "m", model.architecture, model.state_dict())
    assert json.loads((folder / "config.json").read_text())["architecture"] == theirs
    assert {*load_file(folder / "model.safetensors")} == {
        *timm.create_model(theirs, num_classes=3).state_dict()
    }
    check(timm.create_model(f"local-dir:{folder}", pretrained=True), model)
    check(backbones.from_pretrained(folder), model)
    assert "Plain timm knows this network" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_without_this_project(tmp_path: Path, randomize: Callable[[nn.Module], None]) -> None:
    """A process that cannot import it runs a program of ``torch.export``, and plain timm."""
    searched, published = trained("small", 3, randomize), trained("mnasnet_b1", 2, randomize)
    save_pretrained(tmp_path / "m", published.architecture, published.state_dict())
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(searched, (IMAGES,), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "small.pt2")
    images = torch.cat([IMAGES, IMAGES[:1]])
    torch.save(images, tmp_path / "images.pth")
    code = ALONE.format(
        root=str(Path(__file__).resolve().parents[3]),
        images=str(tmp_path / "images.pth"),
        program=str(tmp_path / "small.pt2"),
        folder=str(tmp_path / "m"),
        outputs=str(tmp_path / "outputs.pth"),
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    with torch.no_grad():
        expected = [searched(images), published(images)]
    for found, wanted in zip(torch.load(tmp_path / "outputs.pth"), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_backbone_alone(tmp_path: Path, randomize: Callable[[nn.Module], None]) -> None:
    model = trained("mobilenetv2_100", 3, randomize)
    trunk = {k: v for k, v in model.state_dict().items() if k.startswith(("stem.", "layers."))}
    folder = save_pretrained(tmp_path / "m", model.architecture, trunk)
    with torch.no_grad():
        expected = model.forward_intermediates(IMAGES)
        for features in (
            timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True),
            backbones.from_pretrained(folder, features_only=True),
        ):
            for one, other in zip(features.eval()(IMAGES), expected, strict=True):
                torch.testing.assert_close(one, other)
        plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        torch.testing.assert_close(plain(IMAGES), expected[-1].mean((2, 3)))
    with pytest.raises(UserError, match="has feature maps alone, .* add features_only=True"):
        backbones.from_pretrained(folder)


def test_nothing_is_replaced_unasked(small: tuple[Path, Any]) -> None:
    folder, model = small
    (folder / "config.yaml").write_text("of an earlier run")
    state = {name: value + 0 for name, value in model.state_dict().items()}
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"holds a model already .*--replace"):
        save_pretrained(folder, SMALL, state)
    assert (folder / "model.safetensors").read_bytes() == before
    state["classifier.bias"] += 1
    save_pretrained(folder, SMALL, state, replace=True)
    torch.testing.assert_close(
        load_file(folder / "model.safetensors")["classifier.bias"], state["classifier.bias"]
    )
    assert not (folder / "config.yaml").exists()


def test_mistakes(small: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = small
    state = model.state_dict()
    with pytest.raises(UserError, match="2 labels are given for a classifier of 3 classes"):
        save_pretrained(tmp_path / "n", SMALL, state, labels=LABELS[:2])
    with pytest.raises(UserError, match="belongs to another architecture"):
        save_pretrained(tmp_path / "n", SMALL.scaled(2), state)
    assert not (tmp_path / "n").exists()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="the folder has none of model.safetensors"):
        backbones.from_pretrained(folder)
    for name in ("nowhere", "a/b/c", "you/it--so", "./nowhere", "you/it.git"):
        with pytest.raises(UserError, match="is no folder, and does not have the form USER/NAME"):
            backbones.from_pretrained(name)
