"""Timm's networks as backbones: the maps are timm's, the habits are Detectron2's."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from torch import nn

from backbones import UserError, load_architecture
from backbones.weights import save_checkpoint
from detection.modeling.backbone import build_trunk
from detection.modeling.timm_backbone import TimmBackbone
from detection.report import model_cost
from detection.trainer import DetectionTrainer

ROOT = Path(__file__).resolve().parents[3]
ALL = ("res2", "res3", "res4", "res5")
# By hand from ResNet's definition: what each further feature depends on, res1 first.
RESNET = ("conv1 bn1", "layer1", "layer2", "layer3", "layer4")


def randomise(model: nn.Module) -> None:
    """Statistics as after a training: no norm is the identity."""
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.uniform_(-0.2, 0.2)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenetv3_small_050",  # norm and activation in one module
        "convnext_atto",  # no map at stride 2, no batch norm
        "mambaout_femto",  # maps with channels last
        "darknet17",  # a map at stride 1
        "xception41",  # maps taken by hooks
        "hrnet_w18_small",
    ],
)
def test_maps_are_timms(name: str) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(name, norm="BN").eval()
    randomise(backbone)
    theirs = timm.create_model(name, features_only=True).eval()
    theirs.load_state_dict(backbone.model.state_dict())
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps, expected = backbone(images), theirs(images)
    if name == "mambaout_femto":
        expected = [tensor.permute(0, 3, 1, 2) for tensor in expected]
    by_stride = dict(zip(theirs.feature_info.reduction(), expected, strict=True))
    assert list(maps) == list(backbone.output_shape()) == list(ALL)
    for (feature, tensor), stride in zip(maps.items(), (4, 8, 16, 32), strict=True):
        shape = backbone.output_shape()[feature]
        assert shape.stride == stride
        assert tensor.shape == (2, shape.channels, 64 // stride, 96 // stride)
        torch.testing.assert_close(tensor, by_stride[stride], rtol=1e-4, atol=1e-4)


def test_swin_takes_other_sizes_than_its_own() -> None:
    backbone = TimmBackbone("swin_tiny_patch4_window7_224").eval()
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 64, 160))["res5"].shape == (1, 768, 2, 5)


@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze(freeze_at: int) -> None:
    frozen = tuple(f"{key}." for part in RESNET[:freeze_at] for key in part.split()) or ("-",)
    backbone = TimmBackbone("resnet18", norm="BN", freeze_at=freeze_at).train()
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    loss = sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 64)).values())
    if freeze_at < 5:
        loss.backward()
    for name, parameter in backbone.model.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name
    for name, value in backbone.model.state_dict().items():
        if name.endswith("running_mean"):
            assert torch.equal(value, before[name]) == name.startswith(frozen), name


def test_freezing_without_a_map_at_stride_2() -> None:
    frozen = {
        name
        for name, parameter in TimmBackbone("convnext_atto", freeze_at=2).model.named_parameters()
        if not parameter.requires_grad
    }
    assert frozen
    assert all(name.startswith(("stem_", "stages_0.")) for name in frozen)
    with pytest.raises(UserError, match=r"FREEZE_AT is 1, but .* strides \[4, 8, 16, 32\]"):
        TimmBackbone("convnext_atto", freeze_at=1)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_frozen_norms_keep_the_function(name: str) -> None:
    torch.manual_seed(0)
    plain, frozen = TimmBackbone(name, norm="BN"), TimmBackbone(name, norm="FrozenBN")
    randomise(plain)
    missing = frozen.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert not missing
    norms = {n: type(m) for n, m in plain.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for key, kind in norms.items():
        frozen_kind = type(frozen.get_submodule(key)).__name__
        assert frozen_kind == f"Frozen{kind.__name__}"
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = plain.eval()(images)["res5"]
        torch.testing.assert_close(frozen.train()(images)["res5"], expected, rtol=1e-4, atol=1e-4)


def test_synchronised_norms() -> None:
    backbone = TimmBackbone("mobilenetv3_small_050", norm="SyncBN", freeze_at=1)
    kinds = {type(m).__name__ for m in backbone.modules() if hasattr(m, "running_mean")}
    assert kinds == {"SyncBatchNormAct", "FrozenBatchNorm2d"}
    assert backbone.eval()(torch.zeros(1, 3, 32, 32))["res5"].shape == (1, 288, 1, 1)


def test_a_frozen_norm_never_starts_at_zero() -> None:
    assert any(not m.any() for m in timm.create_model("resnet18").parameters())
    state = TimmBackbone("resnet18").state_dict()
    scales = {name: value for name, value in state.items() if name.endswith("bn2.weight")}
    assert len(scales) == 8
    assert not [name for name, value in scales.items() if not value.all()]


def test_what_no_map_depends_on_does_not_learn() -> None:
    backbone = TimmBackbone("resnet18", norm="BN", out_features=["res3", "res2"])
    assert list(backbone(torch.zeros(1, 3, 64, 64))) == ["res2", "res3"]
    for name, parameter in backbone.model.named_parameters():
        assert parameter.requires_grad == (not name.startswith(("layer3", "layer4"))), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet81"}, "'resnet81', which timm does not have; nearest: resnet18"),
        ({"name": "???"}, r"timm.list_models\(\) has all"),
        ({"name": "resnet18.a9_in1k"}, "no such weights of resnet18; expected one of .*a1_in1k"),
        ({"name": "resnet18", "norm": "GN"}, "MODEL.TIMM.NORM is 'GN'; expected one of FrozenBN"),
        ({"name": "resnet18", "freeze_at": 6}, "FREEZE_AT is 6; expected 0"),
        ({"name": "resnet18", "out_features": []}, r"MODEL.TIMM.OUT_FEATURES is \[\], but"),
        ({"name": "vit_tiny_patch16_224"}, r"strides \[16, 16, 16\]; expected some of res4"),
        ({"name": "maxvit_tiny_tf_224"}, "does not take images of any size"),
        ({"name": "inception_v3"}, r"map 'res2' is \(1, 192, 28, 20\) for an image of \(128, 96\)"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TimmBackbone(**arguments)


@pytest.fixture
def timm_cfg(tiny_cfg: CfgNode) -> CfgNode:
    tiny_cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    tiny_cfg.MODEL.TIMM.NAME = "resnet18"
    tiny_cfg.MODEL.TIMM.NORM = "BN"
    return tiny_cfg


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("build_timm_fpn_backbone", (4, 8, 16, 32, 64)),
        ("build_retinanet_timm_fpn_backbone", (4, 8, 16, 32, 64, 128)),
    ],
)
def test_pyramids(timm_cfg: CfgNode, name: str, levels: tuple[int, ...]) -> None:
    timm_cfg.MODEL.BACKBONE.NAME = name
    backbone = build_backbone(timm_cfg).eval()
    maps = backbone(torch.zeros(1, 3, 128, 64))
    assert [shape.stride for shape in backbone.output_shape().values()] == list(levels)
    for tensor, stride in zip(maps.values(), levels, strict=True):
        assert tensor.shape == (1, 16, math.ceil(128 / stride), math.ceil(64 / stride))


def test_backbone_alone(timm_cfg: CfgNode) -> None:
    timm_cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    timm_cfg.MODEL.TIMM.OUT_FEATURES = ["res5"]
    timm_cfg.MODEL.BACKBONE.FREEZE_AT = 2
    with torch.no_grad():  # as in a script that only evaluates
        backbone = build_backbone(timm_cfg)
    assert backbone.output_shape() == {"res5": ShapeSpec(channels=512, stride=32)}
    assert not backbone.model.conv1.weight.requires_grad
    with pytest.raises(UserError, match="4 values"):
        build_backbone(timm_cfg, ShapeSpec(channels=4))


def test_options_that_do_not_fit(timm_cfg: CfgNode) -> None:
    timm_cfg.MODEL.TIMM.OUT_FEATURES = ["res3", "res4", "res5"]
    with pytest.raises(UserError, match=r"needs 'res2', but MODEL\.TIMM\.OUT_FEATURES"):
        build_backbone(timm_cfg)
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    with pytest.raises(UserError, match=r"no MODEL\.TIMM; call detection\.add_spnas_config"):
        build_backbone(cfg)


def test_pretrained_weights(
    timm_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original, calls = timm.create_model, []

    def offline(name: str, **options: Any) -> nn.Module:
        calls.append(options.pop("pretrained", False))
        if calls[-1] and name != "resnet18":
            raise OSError("no network")
        torch.manual_seed(int(calls[-1]))
        model: nn.Module = original(name, **options)
        return model

    monkeypatch.setattr(timm, "create_model", offline)
    with caplog.at_level(logging.WARNING):
        random = build_backbone(timm_cfg).bottom_up.model.conv1.weight
        assert "starts from random weights" in caplog.text
        caplog.clear()
        timm_cfg.MODEL.TIMM.PRETRAINED = True
        trained = build_backbone(timm_cfg).bottom_up.model.conv1.weight
        assert not caplog.text
        timm_cfg.MODEL.PIXEL_MEAN = [103.53, 116.28, 123.675]
        build_backbone(timm_cfg)
        assert "MODEL.PIXEL_MEAN '[123.675, 116.28, 103.53]' MODEL.PIXEL_STD" in caplog.text
    assert not torch.equal(random, trained)
    timm_cfg.MODEL.TIMM.NAME = "resnet34"
    with pytest.raises(UserError, match=r"could not download timm's weights 'resnet34' \(no netw"):
        build_backbone(timm_cfg)


def test_a_folder_of_timms(tmp_path: Path, timm_cfg: CfgNode) -> None:
    theirs = timm.create_model("resnet18", num_classes=3)
    timm.models.save_for_hf(theirs, tmp_path, model_config={"num_classes": 3})
    timm_cfg.MODEL.TIMM.NAME = f"local-dir:{tmp_path}"
    timm_cfg.MODEL.TIMM.PRETRAINED = True
    ours = build_model(timm_cfg).backbone.bottom_up.model.state_dict()
    assert torch.equal(ours["layer4.1.conv2.weight"], theirs.layer4[1].conv2.weight)
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="the folder has none of model.safetensors"):
        build_model(timm_cfg)


def test_training_and_its_table(train_net: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    options = ("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "resnet18")
    code, output = train_net(*options, "MODEL.BACKBONE.FREEZE_AT", "2")
    assert code == 0, output
    results = json.loads((tmp_path / "run" / "results.json").read_text())["detection"]
    assert results["cost"]["backbone"] == "resnet18"
    assert set(results["scores"]["tiny_val"]) == {"bbox", "segm"}


def test_cost(timm_cfg: CfgNode) -> None:
    cost = model_cost(build_model(timm_cfg), (64, 96), "pixel1")
    assert cost.backbone == "resnet18"
    assert cost.params_classifier == 11_689_512
    assert cost.params_backbone == 11_689_512 - 513_000
    assert cost.macs_classifier == pytest.approx(1.82e9, rel=0.01)  # He et al.: 1.8e9 FLOPs
    assert cost.runtime is None


def test_the_file_of_a_backbone_is_refused(timm_cfg: CfgNode, tmp_path: Path) -> None:
    state = build_trunk(load_architecture("spnas_100"), "BN").state_dict()
    save_checkpoint(tmp_path / "b.pth", {"model": state, "matching_heuristics": True})
    timm_cfg.MODEL.WEIGHTS = str(tmp_path / "b.pth")
    trainer = DetectionTrainer(timm_cfg)
    with pytest.raises(UserError, match=r"leave MODEL.WEIGHTS empty and set MODEL.TIMM.PRETRAINED"):
        trainer.resume_or_load(resume=False)


def test_timm_is_imported_only_when_asked_for() -> None:
    code = "import sys, detection; print('timm' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
