"""The backbone against timm, and against what Detectron2 expects of one."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone, build_model
from torch import nn

from backbones import UserError, convert_weights, list_models, load_architecture
from backbones.network import Trunk
from backbones.weights import save_checkpoint
from detection.modeling.backbone import FEATURES, SPNASBackbone, build_trunk, norm_layer

ROOT = Path(__file__).resolve().parents[3]
ALL = tuple(FEATURES)
# By hand from the architecture: the stem and the layers whose output has stride 2, 4, 8, 16, 32.
LAYERS_OF_STAGE = [range(0, 1), range(1, 5), range(5, 9), range(9, 17), range(17, 22)]


def make(norm: str = "BN", features: tuple[str, ...] = ALL, freeze_at: int = 0) -> SPNASBackbone:
    return SPNASBackbone(build_trunk(load_architecture("spnas_100"), norm), features, freeze_at)


def randomise(model: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.ndim == 1:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3 + 0.7)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_maps_equal_timms(norm: str) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("spnasnet_100").eval()
    randomise(theirs)
    features = timm.create_model("spnasnet_100", features_only=True).eval()
    features.load_state_dict(theirs.state_dict(), strict=False)
    ours = make(norm).eval()
    state = convert_weights(ours.architecture, theirs.state_dict())
    left = ours.load_state_dict(state, strict=False)
    assert not left.missing_keys
    x = torch.randn(2, 3, 97, 66)
    with torch.no_grad():
        for name, expected in zip(ALL, features(x), strict=True):
            torch.testing.assert_close(ours(x)[name], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (33, 32), (97, 131), (1, 1)])
@pytest.mark.parametrize("images", [0, 2])
def test_shapes_are_as_declared(size: tuple[int, int], images: int) -> None:
    backbone = make().eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(images, 3, *size))
    shapes = backbone.output_shape()
    assert list(maps) == list(shapes) == list(ALL)
    assert [shape.stride for shape in shapes.values()] == [2, 4, 8, 16, 32]
    for name, tensor in maps.items():
        stride = shapes[name].stride
        expected = (images, shapes[name].channels, *(math.ceil(side / stride) for side in size))
        assert tuple(tensor.shape) == expected


def test_only_what_is_needed_is_kept() -> None:
    backbone = make(features=("res3", "res2"))
    assert list(backbone.output_shape()) == ["res2", "res3"]
    assert len(backbone.layers) == 9
    sum(m.sum() for m in backbone(torch.randn(2, 3, 32, 32)).values()).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze(freeze_at: int) -> None:
    backbone = make(freeze_at=freeze_at).train()
    frozen = {f"layers.{i}." for stage in LAYERS_OF_STAGE[:freeze_at] for i in stage}
    frozen |= {"stem."} if freeze_at else set()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    loss = sum(m.square().mean() for m in backbone(torch.randn(4, 3, 64, 64)).values())
    if freeze_at < 5:
        loss.backward()
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is None) == name.startswith(tuple(frozen) or "-"), name
    for name, value in backbone.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            still = name.startswith(tuple(frozen) or "-")
            assert torch.equal(value, before[name]) == still, name
    for name, module in backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            expected = (
                FrozenBatchNorm2d if name.startswith(tuple(frozen) or "-") else nn.BatchNorm2d
            )
            assert isinstance(module, expected), name


def test_freezing_keeps_the_function() -> None:
    backbone = make().eval()
    randomise(backbone)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone(x)["res5"]
        torch.testing.assert_close(backbone.freeze(5)(x)["res5"], before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["spnas_100", "mobilenetv3_large_100", "proxylessnas_mobile"])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "SyncBN", "GN", "naiveSyncBN"])
def test_norms(norm: str, name: str) -> None:
    architecture = load_architecture(name)
    backbone = SPNASBackbone(build_trunk(architecture, norm))
    norms = [m for m in backbone.modules() if hasattr(m, "eps")]
    blocks = {"ds": 2, "mbconv": 3, "skip": 0}
    assert len(norms) == 1 + sum(blocks[layer.op] for layer in architecture.layers)
    assert {type(m) for m in norms} == {type(norm_layer(norm, 1e-5)(8))}
    assert {m.eps for m in norms} == {architecture.norm_eps}
    assert norm_layer(norm, 1e-3)(24).eps == 1e-3
    channels = backbone.output_shape()["res5"].channels
    assert backbone.eval()(torch.zeros(1, 3, 32, 32))["res5"].shape == (1, channels, 1, 1)


@pytest.mark.parametrize("name", ["spnas_100", "mobilenetv3_large_100"])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "GN"])
def test_norms_train(norm: str, name: str) -> None:
    torch.manual_seed(0)
    backbone = SPNASBackbone(build_trunk(load_architecture(name), norm)).train()
    before = {key: value.clone() for key, value in backbone.named_buffers()}
    maps = backbone(torch.randn(2, 3, 64, 64))
    sum(tensor.square().mean() for tensor in maps.values()).backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    moved = [key for key, value in backbone.named_buffers() if not torch.equal(value, before[key])]
    assert len(moved) == (len(before) if norm == "BN" else 0)


def test_a_frozen_norm_never_starts_at_zero() -> None:
    frozen, trained = (
        {n: v for n, v in make(norm).state_dict().items() if n.endswith("norm.weight")}
        for norm in ("FrozenBN", "BN")
    )
    assert frozen.keys() == trained.keys()
    assert not [name for name, value in frozen.items() if not value.all()]
    assert [name for name, value in trained.items() if not value.any()]


def test_any_trunk_with_other_layers() -> None:
    """As the search's superkernels are: blocks that the backbone knows nothing about."""

    class Doubled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.inner(x)

    architecture = load_architecture("spnas_100")
    plain = build_trunk(architecture, "BN")
    layer = norm_layer("BN", architecture.norm_eps)
    trunk = Trunk(architecture, [Doubled(item) for item in plain.layers], layer).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = trunk.forward_intermediates(x)
        for tensor, other in zip(SPNASBackbone(trunk, ALL)(x).values(), expected, strict=True):
            assert torch.equal(tensor, other)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("build_spnas_fpn_backbone", {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}),
        (
            "build_retinanet_spnas_fpn_backbone",
            {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128},
        ),
    ],
)
def test_pyramids(tiny_cfg: CfgNode, name: str, levels: dict[str, int]) -> None:
    tiny_cfg.MODEL.BACKBONE.NAME = name
    backbone = build_backbone(tiny_cfg).eval()
    assert {key: shape.stride for key, shape in backbone.output_shape().items()} == levels
    maps = backbone(torch.zeros(1, 3, 128, 64))
    for key, stride in levels.items():
        size = (math.ceil(128 / stride), math.ceil(64 / stride))
        assert maps[key].shape == (1, 16, *size)
    names = {f"bottom_up.{key}" for key in make(features=ALL[1:]).state_dict()}
    assert names == {key for key in backbone.state_dict() if key.startswith("bottom_up.")}


@pytest.mark.parametrize("name", list_models())
def test_every_network_of_the_zoo_has_its_maps(name: str) -> None:
    backbone = SPNASBackbone(build_trunk(load_architecture(name), "BN"), ALL).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 70, 35))
    for key, shape in backbone.output_shape().items():
        sides = [math.ceil(side / shape.stride) for side in (70, 35)]
        assert maps[key].shape == (1, shape.channels, *sides)


def test_stock_detectron2_loads_backbone_pth(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    source = build_trunk(load_architecture("spnas_100"), "BN")
    randomise(source)
    state = {**source.state_dict(), "head.conv.weight": torch.zeros(1280, 320, 1, 1)}
    save_checkpoint(tmp_path / "backbone.pth", {"model": state, "matching_heuristics": True})
    model = build_model(tiny_cfg)
    DetectionCheckpointer(model).load(str(tmp_path / "backbone.pth"))
    loaded = model.backbone.bottom_up.state_dict()
    for name, value in source.state_dict().items():
        # Detectron2 drops nothing but leaves step counters to the file's value.
        assert torch.equal(loaded[name], value), name


def test_bad_values(tiny_cfg: CfgNode) -> None:
    trunk = build_trunk(load_architecture("spnas_100"))
    with pytest.raises(UserError, match=r"OUT_FEATURES is \['res6'\]; expected some of res1"):
        SPNASBackbone(trunk, ["res6"])
    with pytest.raises(UserError, match="OUT_FEATURES"):
        SPNASBackbone(trunk, [])
    with pytest.raises(UserError, match="FREEZE_AT is 6; expected 0"):
        SPNASBackbone(trunk, freeze_at=6)
    for norm in ("BatchNorm", ""):
        with pytest.raises(UserError, match=f"NORM is '{norm}'; expected FrozenBN"):
            build_trunk(load_architecture("spnas_100"), norm)
    tiny_cfg.MODEL.SPNAS.OUT_FEATURES = ["res3", "res4", "res5"]
    with pytest.raises(UserError, match="pyramid needs 'res2'"):
        build_backbone(tiny_cfg)
    with pytest.raises(UserError, match="4 values"):
        build_backbone(tiny_cfg, ShapeSpec(channels=4))


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        (
            "sys.modules['detectron2'] = None",
            "not installed; install it with: python -m detection.installation",
        ),
        (
            "sys.modules['detectron2.data'] = None",
            "cannot be imported .*python -m detection.installation --force",
        ),
    ],
)
def test_without_a_working_detectron2(setup: str, message: str) -> None:
    code = (
        f"import sys; {setup}; import detection, detection.installation\n"
        "try:\n    from detection import add_spnas_config\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "detection.add_spnas_config" in done.stdout
    import re

    assert re.search(message, done.stdout)
