"""The networks in timm's registry: timm's habits, and the figures of ``backbones.create_model``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.optim
import torch
from torch import Tensor, nn

import backbones
import backbones.timm_models
from backbones import UserError
from backbones.architecture import Architecture
from backbones.exported import save_backbone
from backbones.network import build_classifier
from backbones.zoo import timm_equivalent

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SMALL = backbones.load_architecture("spnas_100").scaled(0.25)


def built(make: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    torch.manual_seed(3)
    return make(*args, **kwargs).eval()


@torch.no_grad()
def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, str]:
    """Timm's own MnasNet-A1 at half width with random statistics, and the file of its weights."""
    torch.manual_seed(1)
    model = timm.create_model("semnasnet_075", num_classes=5)
    for name, value in model.state_dict().items():
        if "running_" in name:
            value.copy_(torch.rand_like(value) + 0.5)
    path = tmp_path_factory.mktemp("timm") / "weights.pth"
    torch.save(model.state_dict(), path)
    return model.eval(), str(path)


@pytest.fixture(scope="module")
def ours(theirs: tuple[nn.Module, str]) -> Callable[..., nn.Module]:
    """The same network of ours with those weights, with further arguments."""
    overlay = {"file": theirs[1], "num_classes": 5}

    def make(**kwargs: Any) -> nn.Module:
        return timm.create_model(
            "spnas_mnasnet_a1",
            pretrained=True,
            width_mult=0.75,
            pretrained_cfg_overlay=overlay,
            **kwargs,
        ).eval()

    return make


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classifier's run with four classes."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(2)
    save_backbone(folder, SMALL, build_classifier(SMALL, 4).state_dict())
    return folder


def test_names() -> None:
    listed = timm.list_models(module="timm_models")
    zoo = {f"spnas_{name.removeprefix('spnas_')}" for name in backbones.list_models()}
    assert {*listed} == zoo | {"spnas_searched"}
    assert {*timm.list_models("spnas*")} == {*listed, "spnasnet_100"}
    # timm's own stay timm's
    for name in ("mobilenetv2_100", "mnasnet_100", "spnasnet_100"):
        assert timm.models.is_model_in_modules(name, ["efficientnet"])
    pretrained = timm.list_models("spnas*", pretrained=True)
    assert "spnas_mobilenetv2_100" in pretrained and "spnas_searched" not in pretrained


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("spnas_100", "spnas_100"),
        ("spnas_mobilenetv3_large_100", "mobilenetv3_large_100"),
        ("spnas_efficientnet_lite0", "efficientnet_lite0"),
    ],
)
def test_the_same_as_create_model(name: str, own: str) -> None:
    """Also what is drawn, so that trainings are the same."""
    model, expected = (
        built(timm.create_model, name, num_classes=7),
        built(backbones.create_model, own, num_classes=7),
    )
    assert list(model.state_dict()) == list(expected.state_dict())
    with torch.no_grad():
        assert torch.equal(model(IMAGES), expected(IMAGES))
        maps = model.forward_features(IMAGES)
        assert torch.equal(maps, expected.forward_features(IMAGES))
        for pre_logits in (False, True):
            found = model.forward_head(maps, pre_logits=pre_logits)
            assert torch.equal(found, expected.forward_head(maps, pre_logits))
    images = backbones.load_architecture(own).input
    config = timm.data.resolve_data_config(model=model)
    assert config["mean"] == images.mean and config["std"] == images.std
    assert config["input_size"] == (3, images.size, images.size)


def test_habits_beside_timms_own_network(
    theirs: tuple[nn.Module, str], ours: Callable[..., nn.Module]
) -> None:
    reference, _ = theirs
    model = ours()
    assert model.num_classes == 5
    with torch.no_grad():
        same(model(IMAGES), reference(IMAGES))
        same(model.forward_features(IMAGES), reference.forward_features(IMAGES))
        for indices in (None, 2, [1, 4]):
            same(
                model.forward_intermediates(IMAGES, indices),
                reference.forward_intermediates(IMAGES, indices),
            )
        early = {"indices": [0, 2], "stop_early": True, "intermediates_only": True}
        same(
            model.forward_intermediates(IMAGES, **early),
            reference.forward_intermediates(IMAGES, **early),
        )
        pooled = {"pre_logits": True}
        same(
            model.forward_head(model.forward_features(IMAGES), **pooled),
            reference.forward_head(reference.forward_features(IMAGES), **pooled),
        )
    assert model.num_features == reference.num_features
    assert model.head_hidden_size == reference.head_hidden_size
    for info, other in zip(model.feature_info, reference.feature_info, strict=True):
        assert info["num_chs"] == other["num_chs"] and info["reduction"] == other["reduction"]


@pytest.mark.parametrize("pool", ["max", "avgmax", "catavgmax", ""])
def test_pooling(theirs: tuple[nn.Module, str], ours: Callable[..., nn.Module], pool: str) -> None:
    reference, _ = theirs
    other = timm.create_model("semnasnet_075", num_classes=0, global_pool=pool).eval()
    other.load_state_dict(reference.state_dict(), strict=False)
    with torch.no_grad():
        same(ours(num_classes=0, global_pool=pool)(IMAGES), other(IMAGES))


def test_other_channels_of_images(
    theirs: tuple[nn.Module, str], ours: Callable[..., nn.Module]
) -> None:
    """The first convolution is adapted as timm does it."""
    grey = IMAGES[:, :1]
    overlay = {"file": theirs[1], "num_classes": 5}
    other = timm.create_model(
        "semnasnet_075", pretrained=True, in_chans=1, pretrained_cfg_overlay=overlay
    ).eval()
    with torch.no_grad():
        same(ours(in_chans=1)(grey), other(grey))


@pytest.mark.parametrize("indices", [(0, 1, 2, 3, 4), (1, 3), (-1,)])
def test_features(
    theirs: tuple[nn.Module, str], ours: Callable[..., nn.Module], indices: tuple[int, ...]
) -> None:
    features = ours(features_only=True, out_indices=indices)
    options = {"features_only": True, "out_indices": indices}
    overlay = {"file": theirs[1], "num_classes": 5}
    other = timm.create_model(
        "semnasnet_075", pretrained=True, pretrained_cfg_overlay=overlay, **options
    ).eval()
    with torch.no_grad():
        same(list(features(IMAGES)), list(other(IMAGES)))
    assert features.feature_info.channels() == other.feature_info.channels()
    assert features.feature_info.reduction() == other.feature_info.reduction()
    names = [name for name, _ in features.named_parameters()]
    assert not any("head" in name or "classifier" in name for name in names)


def test_another_classifier(ours: Callable[..., nn.Module]) -> None:
    model = ours()
    assert model.get_classifier() is model.classifier
    model.reset_classifier(3)
    assert model.num_classes == 3 and model(IMAGES).shape == (2, 3)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model(IMAGES).shape == (2, model.head_hidden_size)
    model.reset_classifier(6, "catavgmax")
    assert model(IMAGES).shape == (2, 6) and model.head_hidden_size == 2 * model.num_features


def test_rates_by_layer_and_checkpointing(ours: Callable[..., nn.Module]) -> None:
    model = ours()
    groups = timm.optim.param_groups_layer_decay(model, layer_decay=0.5)
    scales = {group["lr_scale"] for group in groups}
    assert max(scales) == 1 and len(scales) == len(model.layers) + 2
    model(IMAGES).sum().backward()
    plain = model.stem.conv.weight.grad.clone()
    model.zero_grad()
    model.set_grad_checkpointing()
    model(IMAGES).sum().backward()
    torch.testing.assert_close(model.stem.conv.weight.grad, plain)


@pytest.mark.parametrize("named", ["folder", "file"])
def test_the_weights_of_a_run(run: Path, named: str) -> None:
    file = run / "architecture.json"
    expected = backbones.create_model(
        file, checkpoint_path=run / "backbone.pth", num_classes=4
    ).eval()
    place = run if named == "folder" else str(file)
    model = timm.create_model("spnas_searched", architecture=place, pretrained=True).eval()
    fresh = timm.create_model(
        "spnas_searched", architecture=place, checkpoint_path=run / "backbone.pth", num_classes=4
    ).eval()
    with torch.no_grad():
        assert torch.equal(model(IMAGES), expected(IMAGES))
        assert torch.equal(fresh(IMAGES), expected(IMAGES))
    other = timm.create_model(
        "spnas_searched", architecture=place, pretrained=True, num_classes=9, drop_rate=0.3
    )
    assert torch.equal(other.stem.conv.weight, expected.stem.conv.weight)
    assert other.classifier.out_features == 9 and other.dropout.p == 0.3


@pytest.mark.parametrize("how", ["pretrained", "checkpoint_path"])
def test_feature_maps_of_a_run(run: Path, how: str) -> None:
    weights: Any = {"pretrained": True} if how == "pretrained" else {how: run / "backbone.pth"}
    features = timm.create_model(
        "spnas_searched", architecture=run, features_only=True, out_indices=(1, 2), **weights
    ).eval()
    expected = backbones.create_model(
        run / "architecture.json",
        features_only=True,
        out_indices=(1, 2),
        checkpoint_path=run / "backbone.pth",
    ).eval()
    with torch.no_grad():
        for one, other in zip(features(IMAGES), expected(IMAGES), strict=True):
            assert torch.equal(one, other)


def test_a_trunk_without_head(tmp_path: Path) -> None:
    """What a search on a detector leaves: stem and layers, without counters of batches."""
    state = {
        name: value
        for name, value in build_classifier(SMALL, 4).state_dict().items()
        if name.startswith(("stem.", "layers.")) and not name.endswith("num_batches_tracked")
    }
    save_backbone(tmp_path, SMALL, state)
    model = timm.create_model(
        "spnas_searched", architecture=tmp_path, pretrained=True, num_features=0
    )
    assert model(IMAGES).shape == (2, SMALL.layers[-1].out_channels)
    assert torch.equal(model.stem.conv.weight, state["stem.conv.weight"])


def test_architectures_as_data() -> None:
    for given in (SMALL, SMALL.to_dict()):
        model = timm.create_model("spnas_searched", architecture=given, num_classes=2)
        assert model.architecture == SMALL and model(IMAGES).shape == (2, 2)


def test_published_weights_come_from_their_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    state = build_classifier(backbones.load_architecture("mobilenetv2_100")).state_dict()

    def load(source: str, architecture: Architecture) -> dict[str, Tensor]:
        asked.append(source)
        return dict(state)

    monkeypatch.setattr("backbones.timm_network.load_state", load)
    model = timm.create_model("spnas_mobilenetv2_100", pretrained=True)
    assert torch.equal(model.stem.conv.weight, state["stem.conv.weight"])
    timm.create_model("spnas_mobilenetv2_100.ra_in1k", pretrained=True)
    config = timm.models.get_pretrained_cfg("spnas_mobilenetv2_100")
    timm.create_model("spnas_mobilenetv2_100", pretrained=True, pretrained_cfg=config)
    assert asked[2:] == asked[:1]
    assert asked[:2] == ["timm://mobilenetv2_100", "timm://mobilenetv2_100.ra_in1k"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"'spnas_searched' needs architecture=\.\.\."),
        ({"architecture": "nowhere"}, "unknown architecture 'nowhere'"),
        ({"architecture": SMALL, "pretrained": True}, "given as data, which says nothing of"),
        ({"architecture": SMALL, "in_chans": 0}, "in_chans is 0; expected 1 or more"),
        ({"architecture": SMALL, "num_features": 7}, "num_features is 7; architecture"),
        (
            {"architecture": "mobilenetv3_large_100", "global_pool": "catavgmax"},
            "has a layer between pooling and classifier: use avg",
        ),
        ({"architecture": "fbnet_b", "pretrained": True}, "no pretrained weights for"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        timm.create_model("spnas_searched", **options)


def test_weights_of_another_network(run: Path, tmp_path: Path) -> None:
    SMALL.scaled(2).save(tmp_path / "architecture.json")
    (tmp_path / "backbone.pth").write_bytes((run / "backbone.pth").read_bytes())
    with pytest.raises(UserError, match="belongs to another architecture"):
        timm.create_model("spnas_searched", architecture=tmp_path, pretrained=True)
    (tmp_path / "backbone.pth").unlink()
    with pytest.raises(UserError, match=r"there is no backbone\.pth beside its architecture"):
        timm.create_model("spnas_searched", architecture=tmp_path, pretrained=True)


def test_which_networks_timm_has() -> None:
    """Whatever they are called and came from; the width counts."""
    base = backbones.load_architecture("mobilenetv2_100")
    found = timm_equivalent(Architecture.from_dict({**base.to_dict(), "name": "mine"}))
    assert found is not None and found.name == "mobilenetv2_100"
    half = timm_equivalent(base.scaled(0.5))
    assert half is not None and half.name == "mobilenetv2_050"
    assert timm_equivalent(base.scaled(0.3)) is None
    assert timm_equivalent(SMALL) is None
