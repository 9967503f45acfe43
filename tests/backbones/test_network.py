"""Networks against timm's own implementation, and the habits of ``create_model``."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models._efficientnet_blocks import SqueezeExcite as TimmSqueezeExcite
from timm.models.efficientnet import _gen_spnasnet
from torch import Tensor, nn

import backbones
from backbones import UserError, create_model, from_timm, list_models, load_architecture
from backbones.blocks import MBConv, SqueezeExcite
from backbones.network import build_classifier
from backbones.weights import load_weights, save_checkpoint


def randomize(model: nn.Module) -> None:
    """Random weights and batch-norm statistics, so that no tensor can hide behind its default."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(noise + 0.5 if "var" in name or "norm.weight" in name else noise - 0.5)
            if value.dim() == 4:
                value.mul_(2 / (value[0].numel() ** 0.5))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))


def timm_pair(width_mult: float = 1.0) -> tuple[nn.Module, nn.Module]:
    theirs = _gen_spnasnet("spnasnet_100", channel_multiplier=width_mult).eval()
    randomize(theirs)
    ours = create_model("spnas_100", width_mult=width_mult).eval()
    load_weights(ours, from_timm(ours.architecture, theirs.state_dict()), "timm")
    return theirs, ours


@pytest.mark.parametrize("width_mult", [1.0, 0.5])
def test_logits_equal_timm(images: Tensor, width_mult: float) -> None:
    theirs, ours = timm_pair(width_mult)
    expected = theirs(images).detach()
    assert expected.std() > 1e-3
    scale = float(expected.abs().max())
    torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5 * scale)


def test_feature_maps_equal_timm(images: Tensor) -> None:
    theirs, _ = timm_pair()
    features = timm.create_model("spnasnet_100", features_only=True).eval()
    features.load_state_dict(theirs.state_dict(), strict=False)
    ours = create_model("spnas_100", features_only=True).eval()
    state = from_timm(ours.architecture, theirs.state_dict())
    load_weights(ours, state, "timm", ignore=("head.", "classifier."))
    with torch.no_grad():
        expected, maps = features(images), ours(images)
    assert ours.feature_info.channels() == features.feature_info.channels()
    assert ours.feature_info.reduction() == features.feature_info.reduction()
    assert len(maps) == len(expected) == 5
    for ours_map, theirs_map in zip(maps, expected, strict=True):
        scale = float(theirs_map.abs().max())
        torch.testing.assert_close(ours_map, theirs_map, rtol=1e-5, atol=1e-5 * scale)


def test_parameter_count() -> None:
    model = create_model("spnas_100")
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_421_616


@pytest.mark.parametrize("name", list_models())
def test_every_network_keeps_its_contract(name: str) -> None:
    """Declared channels and strides hold for real tensors; every parameter gets a gradient."""
    architecture = load_architecture(name)
    model = build_classifier(architecture, num_classes=7, zero_init_residual=False)
    maps = model.forward_intermediates(torch.randn(2, 3, 64, 96))
    for feature, feature_map in zip(model.feature_info, maps, strict=True):
        size = (64 // feature.reduction, 96 // feature.reduction)
        assert feature_map.shape == (2, feature.num_chs, *size)
    logits = model(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    silent = [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert not silent


def test_squeeze_excite_equals_timm() -> None:
    theirs = TimmSqueezeExcite(24, rd_ratio=0.25)
    ours = SqueezeExcite(24, 6)
    ours.reduce.load_state_dict(theirs.conv_reduce.state_dict())  # type: ignore[union-attr]
    ours.expand.load_state_dict(theirs.conv_expand.state_dict())  # type: ignore[union-attr]
    x = torch.randn(2, 24, 5, 5)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(("reference", "channels"), [("expanded", 36), ("input", 6)])
def test_squeeze_channels_follow_their_definition(reference: str, channels: int) -> None:
    spec = backbones.LayerSpec(24, expansion=6, se_ratio=0.25, se_reference=reference)  # type: ignore[arg-type]
    assert MBConv(24, spec, nn.BatchNorm2d).se.reduce.out_channels == channels


def test_residual_branches_start_at_zero() -> None:
    model = create_model("spnas_100")
    last_norms = [
        layer.project.norm.weight
        for layer in model.layers
        if isinstance(layer, MBConv) and layer.residual
    ]
    assert len(last_norms) == 14
    assert all(not weight.any() for weight in last_norms)


def test_create_model_reads_a_checkpoint(tmp_path, images: Tensor) -> None:
    model = create_model("spnas_100", num_classes=10).eval()
    randomize(model)
    save_checkpoint(tmp_path / "backbone.pth", {"model": model.state_dict()})
    again = create_model("spnas_100", num_classes=10, checkpoint_path=tmp_path / "backbone.pth")
    torch.testing.assert_close(again.eval()(images), model(images))
    features = create_model(
        "spnas_100",
        features_only=True,
        out_indices=(1, -1),
        checkpoint_path=tmp_path / "backbone.pth",
    ).eval()
    assert [tuple(f.shape) for f in features(images)] == [(2, 24, 24, 16), (2, 320, 3, 2)]


def test_num_classes_zero_returns_pooled_features(images: Tensor) -> None:
    model = create_model("spnas_100", num_classes=0).eval()
    torch.testing.assert_close(
        model(images), model.forward_head(model.forward_features(images), pre_logits=True)
    )
    assert model(images).shape == (2, 1280)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name_or_path": "spnas_10"}, "unknown architecture 'spnas_10'; expected one of"),
        ({"name_or_path": "no/such.json"}, "no architecture file at 'no/such.json'"),
        ({"name_or_path": "spnas_100", "width_mult": -1}, "width_mult is -1"),
        ({"name_or_path": "spnas_100", "num_classes": -3}, "num_classes is -3"),
        (
            {"name_or_path": "spnas_100", "features_only": True, "out_indices": (5,)},
            "out_indices has 5; expected 0 to 4",
        ),
        ({"name_or_path": "spnas_100", "checkpoint_path": "none.pth"}, "no checkpoint at"),
    ],
)
def test_mistakes_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model(**arguments)
