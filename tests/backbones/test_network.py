"""Blocks against timm's, and the habits of ``create_model``; whole networks: test_zoo.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.models._efficientnet_blocks import SqueezeExcite as TimmSqueezeExcite
from torch import Tensor, nn

import backbones
from backbones import UserError, create_model
from backbones.blocks import ConvNormAct, MBConv, SqueezeExcite, pad_same
from backbones.network import build_classifier
from backbones.weights import save_checkpoint


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))


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


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (1, 2), (9, 6)], ids=str)
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_tensorflows(kernel: int, stride: int, size: tuple[int, int]) -> None:
    """By its documented formula, written out: pad_along = max((out - 1)·s + k - in, 0)."""
    torch.manual_seed(0)
    module = ConvNormAct(2, 3, kernel, nn.Identity, None, stride)  # type: ignore[arg-type]
    names = list(module.state_dict())
    pad_same(module)
    assert list(module.state_dict()) == names
    image = torch.randn(1, 2, *size)
    outs = [math.ceil(side / stride) for side in size]
    alongs = [max((o - 1) * stride + kernel - n, 0) for o, n in zip(outs, size, strict=True)]
    padded = torch.zeros(1, 2, *(n + a for n, a in zip(size, alongs, strict=True)))
    top, left = (along // 2 for along in alongs)
    padded[:, :, top : top + size[0], left : left + size[1]] = image
    expected = torch.zeros(1, 3, *outs)
    for y in range(outs[0]):
        for x in range(outs[1]):
            window = padded[
                0, :, y * stride : y * stride + kernel, x * stride : x * stride + kernel
            ]
            expected[0, :, y, x] = (module.conv.weight * window).sum((1, 2, 3))
    torch.testing.assert_close(module(image), expected)


def test_residual_branches_start_at_zero() -> None:
    model = create_model("spnas_100")
    last_norms = [
        layer.project.norm.weight
        for layer in model.layers
        if isinstance(layer, MBConv) and layer.residual
    ]
    assert len(last_norms) == 14
    assert all(not weight.any() for weight in last_norms)


@pytest.mark.parametrize("scale", [0.0, 0.2, 1.0])
def test_initial_scale_of_residual_branches(scale: float) -> None:
    architecture = backbones.load_architecture("spnas_100")
    torch.manual_seed(0)
    model = build_classifier(architecture, 10, residual_scale=scale)
    torch.manual_seed(0)
    plain = build_classifier(architecture, 10)
    scaled = {
        f"layers.{index}.project.norm.weight"
        for index, layer in enumerate(model.layers)
        if isinstance(layer, MBConv) and layer.residual
    }
    assert len(scaled) == 14
    for name, value in model.state_dict().items():
        if name in scaled:
            assert torch.equal(value, torch.full_like(value, scale)), name
        else:  # whatever the scale, the random numbers are the same
            assert torch.equal(value, plain.state_dict()[name]), name


def test_a_norm_that_cannot_learn_keeps_its_weight() -> None:
    class Fixed(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(channels))

        def forward(self, x: Tensor) -> Tensor:
            return x

    model = build_classifier(backbones.load_architecture("spnas_100"), 10, norm_layer=Fixed)
    assert all(norm.weight.all() for norm in model.modules() if isinstance(norm, Fixed))


def test_create_model_reads_a_checkpoint(
    tmp_path: Path, images: Tensor, randomize: Callable[[nn.Module], None]
) -> None:
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


@pytest.mark.parametrize("name", ["spnas_100", "mobilenetv3_large_100", "efficientnet_lite0"])
def test_networks_script_and_trace(name: str) -> None:
    """Both ways of TorchScript, with squeeze-and-excitation, hard-swish and a hidden layer."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5).eval()
    extractor = create_model(name, features_only=True, out_indices=(1, 3)).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(torch.jit.script(model)(images), expected)
        torch.testing.assert_close(torch.jit.trace(model, images[:1])(images), expected)
        scripted = torch.jit.script(extractor)(images)
        for one, other in zip(scripted, extractor(images), strict=True):
            torch.testing.assert_close(one, other)
