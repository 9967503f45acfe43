"""Checkpoints that fit, and those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backbones import UserError, create_model
from backbones.weights import load_weights, model_state, read_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return create_model("spnas_100", num_classes=10).state_dict()


def test_truncated_checkpoint(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "backbone.pth"
    save_checkpoint(path, {"model": state})
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="truncated"):
        read_checkpoint(path)


def test_checkpoint_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Path("x")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="not a PyTorch checkpoint of tensors"):
        read_checkpoint(tmp_path / "evil.pth")


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "model.pth"
    save_checkpoint(path, {"model": {"a": torch.ones(1)}})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"model": lambda: None})
    assert torch.equal(read_checkpoint(path)["model"]["a"], torch.ones(1))
    assert [item.name for item in tmp_path.iterdir()] == ["model.pth"]


def test_wrong_class_count(state: dict[str, torch.Tensor]) -> None:
    model = create_model("spnas_100", num_classes=7)
    before = model.layers[1].project.conv.weight.clone()
    with pytest.raises(UserError, match=r"another number of classes.*10×1280 in the file, 7×1280"):
        load_weights(model, state, "ten.pth")
    assert torch.equal(model.layers[1].project.conv.weight, before)
    load_weights(model, state, "ten.pth", ignore=("classifier.",))
    assert torch.equal(model.layers[1].project.conv.weight, state["layers.1.project.conv.weight"])


def test_another_architecture(state: dict[str, torch.Tensor]) -> None:
    model = create_model("spnas_100", num_classes=10, width_mult=0.5)
    with pytest.raises(UserError, match=r"'ten.pth' belongs to another architecture: \d+ tensors"):
        load_weights(model, state, "ten.pth")


def test_a_checkpoint_without_weights(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "empty.pth", {"iteration": 3})
    with pytest.raises(UserError, match="holds no model weights"):
        model_state(read_checkpoint(tmp_path / "empty.pth"), "empty.pth")
