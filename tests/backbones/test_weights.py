"""Checkpoints that fit, and those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backbones import UserError, create_model
from backbones.states import model_state
from backbones.weights import load_weights, read_checkpoint, save_checkpoint, save_safetensors


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
    torch.save({"model": print}, tmp_path / "evil.pth")
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


def test_safetensors(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    """By its content, whatever it is called; and the reverse."""
    for name in ("x.safetensors", "x.pth"):
        save_file(state, tmp_path / name)
        found = read_checkpoint(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)
    torch.save(state, tmp_path / "torch.safetensors")
    assert read_checkpoint(tmp_path / "torch.safetensors").keys() == state.keys()
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*x.safetensors"):
        read_checkpoint(tmp_path / "x.safetensors")


def test_safetensors_with_classes(tmp_path: Path) -> None:
    """As a detector's are shared: the names are beside the tensors, as in a checkpoint."""
    tensors, path = {"a": torch.ones(2, 3).t()}, tmp_path / "x.safetensors"
    save_safetensors(path, tensors, ["cat", "dög"])
    content = read_checkpoint(path)
    assert content.keys() == {"model", "classes"} and content["classes"] == ["cat", "dög"]
    assert torch.equal(content["model"]["a"], tensors["a"])
    save_safetensors(path, tensors)
    assert read_checkpoint(path).keys() == {"a"}
    save_file({"a": torch.ones(1)}, path, {"classes": "[no JSON"})
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*x.safetensors"):
        read_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(value: float, state: dict[str, torch.Tensor]) -> None:
    model = create_model("spnas_100", num_classes=10)
    before = model.stem.conv.weight.clone()
    broken = {name: tensor.clone() for name, tensor in state.items()}
    broken["layers.1.project.conv.weight"].view(-1)[:3] = value
    broken["classifier.bias"][0] = value
    message = (
        r"'x.pth' holds NaN or infinity in 2 tensors: layers.1.project.conv.weight \(3 of \d+\), "
        r"classifier.bias \(1 of 10\); its training diverged"
    )
    with pytest.raises(UserError, match=message):
        load_weights(model, broken, "x.pth")
    assert torch.equal(model.stem.conv.weight, before)


def test_integers_are_no_weights(state: dict[str, torch.Tensor]) -> None:
    model = create_model("spnas_100", num_classes=10)
    quantised = {**state, "stem.conv.weight": state["stem.conv.weight"].to(torch.int8)}
    with pytest.raises(UserError, match=r"1 tensors that are not .*: stem.conv.weight \(int8\);"):
        load_weights(model, quantised, "x.pth")
