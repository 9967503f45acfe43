"""Published weights by address and by file: what is found, what is loaded, and what is refused."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from pytorchcv.model_provider import get_model as pytorchcv_model
from torch import nn

from backbones import UserError, convert_weights, create_model, list_published, load_architecture
from backbones.published import downloading, find_published, own_state, published_for
from backbones.weights import save_checkpoint

ADDRESSES = sorted(a for a in list_published() if not a.startswith("package://"))
"""Those of libraries; packages: test_packaged.py."""


@pytest.fixture
def library(
    monkeypatch: pytest.MonkeyPatch, randomize: Callable[[nn.Module], None]
) -> dict[str, nn.Module]:
    """Stands for the network: what is "downloaded" is random, and is kept by name."""
    timm_model, torchvision_model = timm.create_model, torchvision.models.get_model
    given: dict[str, nn.Module] = {}

    def keep(name: str, model: nn.Module) -> nn.Module:
        randomize(model)
        given[name] = model.eval()
        return model

    def from_timm(name: str, pretrained: bool) -> nn.Module:
        assert pretrained
        return keep(name, timm_model(name))

    def from_torchvision(name: str, weights: Any) -> nn.Module:
        assert weights.url.startswith("https://")
        return keep(name, torchvision_model(name, weights=None))

    monkeypatch.setattr(timm, "create_model", from_timm)
    monkeypatch.setattr(torchvision.models, "get_model", from_torchvision)
    return given


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_address_loads(address: str, library: dict[str, nn.Module]) -> None:
    weights = find_published(address)
    if weights.library == "timm":
        assert timm.list_pretrained(f"{weights.name}.*")
    name = weights.architecture.name.partition("_x")[0]
    ours = create_model(name, pretrained=address, width_mult=weights.width_mult).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = library[weights.name](images)
        scale = float(expected.abs().max())
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5 * scale)


def test_every_network_of_timms_has_its_address() -> None:
    """The zoo's networks by timm's names; FBNet-B and ProxylessNAS are not in timm."""
    names = ("spnasnet_100", "mobilenetv2_100", "mobilenetv3_large_100", "mnasnet_100",
             "semnasnet_100", "fbnetc_100")  # fmt: skip
    assert {f"timm://{name}" for name in names} <= set(ADDRESSES)
    for name in ("mobilenet_v2", "mobilenet_v3_large", "mnasnet1_0"):
        assert f"torchvision://{name}" in ADDRESSES


def test_files_from_before_there_were_addresses() -> None:
    base = load_architecture("spnas_100")
    older = dataclasses.replace(base, provenance={"timm": "spnasnet_100"})
    assert published_for(older).address == published_for(base).address
    with pytest.raises(UserError, match=r"provenance: weights is \['a'\]; expected an object"):
        published_for(dataclasses.replace(base, provenance={"weights": ["a"]}))


def test_the_width_chooses_the_weights(library: dict[str, nn.Module]) -> None:
    base = load_architecture("mobilenetv2_100")
    assert published_for(base, 1.4).address == "timm://mobilenetv2_140"
    create_model("mobilenetv2_100", pretrained=True, width_mult=0.5, features_only=True)
    model = create_model("mobilenetv2_100", pretrained=True, num_classes=3)
    assert list(library) == ["mobilenetv2_050", "mobilenetv2_100"]
    stem = library["mobilenetv2_100"].conv_stem.weight  # type: ignore[union-attr]
    assert torch.equal(model.stem.conv.weight, stem)


def test_a_tag_names_other_weights(
    library: dict[str, nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        create_model("mobilenetv2_100", pretrained="torchvision://mobilenet_v2.IMAGENET1K_V1")
        assert not caplog.text
        address = "timm://mobilenetv3_large_100.ra4_e3600_r224_in1k"
        create_model("mobilenetv3_large_100", pretrained=address)
    assert list(library) == ["mobilenet_v2", "mobilenetv3_large_100.ra4_e3600_r224_in1k"]
    assert "were trained with mean (0.5, 0.5, 0.5)" in caplog.text


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("timm://mobilnetv2_100", "nearest: timm://mobilenetv2_100"),
        ("torchvision://mobilenetv3_large", "nearest: torchvision://mobilenet_v3_large"),
        ("timm://xyz", "nearest: package://efficientnet_lite0, package://efficientnet_lite1, "),
        (
            "timm://mobilenetv2_100.ra2_in1k",
            "timm has no weights 'ra2_in1k' .* expected timm://mobilenetv2_100.ra_in1k",
        ),
        (
            "torchvision://mobilenet_v2.V1",
            "expected torchvision://mobilenet_v2.IMAGENET1K_V1, torchvision://",
        ),
        ("timm://mobilenetv2_140", "'timm://mobilenetv2_140' belongs to another architecture"),
    ],
)
def test_wrong_addresses(library: dict[str, nn.Module], address: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model("mobilenetv2_100", pretrained=address)


def test_downloaded_files_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchvision asks PyTorch to unpickle anything that its server, or its cache, holds."""

    class Runs:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"weight": Runs()}, tmp_path / "evil.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    address = (tmp_path / "evil.pth").as_uri()
    refused = pytest.raises(UserError, match="could not download the weights .*; use others")
    with refused, downloading("the weights", "use others"):
        torch.hub.load_state_dict_from_url(address, progress=False, weights_only=False)
    assert not (tmp_path / "ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("timm://fbnetc_100", "download https://github.com/.*/fbnetc_100-c345b898.pth elsewhere"),
        ("torchvision://mnasnet1_0", "download https://download.pytorch.org/.*mnasnet1.0_"),
    ],
)
def test_without_a_network(monkeypatch: pytest.MonkeyPatch, address: str, url: str) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torchvision.models, "get_model", offline)
    name = find_published(address).architecture.name
    with pytest.raises(UserError, match=rf"could not download .* \(no network\); {url}"):
        create_model(name, pretrained=address)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name_or_path": "fbnet_b"}, "no pretrained weights for architecture 'fbnet_b' at wid"),
        (
            {"name_or_path": "mnasnet_a1", "width_mult": 1.4},
            r"only timm://semnasnet_100 \(width_mult=1\), timm://semnasnet_075",
        ),
        ({"name_or_path": "fbnet_c", "checkpoint_path": "x.pth"}, "either pretrained or check"),
    ],
)
def test_no_weights(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model(**arguments, pretrained=True)


def files() -> dict[str, tuple[str, Callable[[], nn.Module]]]:
    """The zoo's name and another library's network, whose file is to be loaded."""
    return {
        "timm": ("mnasnet_a1", lambda: timm.create_model("semnasnet_100", num_classes=5)),
        "torchvision": (
            "mobilenetv3_large_100",
            lambda: torchvision.models.mobilenet_v3_large(num_classes=5),
        ),
        "torchvision-mnasnet": ("mnasnet_b1", lambda: torchvision.models.mnasnet1_0(num_classes=5)),
        "pytorchcv": (
            "proxylessnas_mobile",
            lambda: pytorchcv_model("proxylessnas_mobile", num_classes=5),
        ),
        "pytorchcv-spnasnet": ("spnas_100", lambda: pytorchcv_model("spnasnet", num_classes=5)),
    }


@pytest.mark.parametrize("case", files())
def test_files_of_other_libraries(
    case: str, tmp_path: Path, randomize: Callable[[nn.Module], None]
) -> None:
    name, build = files()[case]
    theirs = build().eval()
    randomize(theirs)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = create_model(name, num_classes=5, checkpoint_path=tmp_path / "theirs.pth").eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs(images)
        scale = float(expected.abs().max())
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5 * scale)


def test_files_of_another_network(tmp_path: Path) -> None:
    state = timm.create_model("mobilenetv2_100").state_dict()
    save_checkpoint(tmp_path / "other.pth", state)
    message = (
        r"other.pth': 105 modules with weights, architecture 'spnas_100' has 129; first that "
        r"differ: blocks.1.0.conv_pw.weight is 96×16, layers.1.expand.conv.weight in .* 48×16; "
    )
    with pytest.raises(UserError, match=message):
        create_model("spnas_100", checkpoint_path=tmp_path / "other.pth")
    state["blocks.1.0.conv_dw.weight"] = torch.zeros(96, 1, 5, 5)
    message = (
        "first that differ: blocks.1.0.conv_dw.weight is 96×1×5×5, layers.1.depthwise.conv.weight "
        "in architecture 'mobilenetv2_100' 96×1×3×3; they are not the same network"
    )
    with pytest.raises(UserError, match=message):
        convert_weights(load_architecture("mobilenetv2_100"), state)


def test_weights_without_a_classifier() -> None:
    for name, twin in (("mobilenetv3_large_100",) * 2, ("fbnet_c", "fbnetc_100")):
        theirs = timm.create_model(twin, num_classes=0)
        state = convert_weights(load_architecture(name), theirs.state_dict())
        assert set(state) == set(create_model(name, num_classes=0).state_dict())


def test_own_weights_are_left_alone() -> None:
    ours = create_model("fbnet_c", num_classes=2)
    state = ours.state_dict()
    assert own_state(ours.architecture, state, "ours") is state
