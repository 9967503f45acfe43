"""A detector's weights in the forms in which people have them: its own, and its backbone's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from safetensors.torch import save_file
from torch import Tensor, nn

from backbones import UserError, convert_weights, load_architecture
from detection.checkpointing import DetectorCheckpointer

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def theirs() -> State:
    torch.manual_seed(3)
    return dict(timm.create_model("mobilenetv2_050").state_dict())


@pytest.fixture
def detector(tiny_cfg: Any) -> nn.Module:
    tiny_cfg.MODEL.SPNAS.ARCH, tiny_cfg.MODEL.SPNAS.WIDTH_MULT = "mobilenetv2_100", 0.5
    return build_model(tiny_cfg)


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def forms(state: State, folder: Path) -> Iterator[tuple[str, str]]:
    """Name, and what to give as MODEL.WEIGHTS, of a network's file."""
    noise = {name: torch.rand(value.shape) for name, value in state.items()}
    contents: dict[str, Any] = {
        "sorted": dict(sorted(state.items())),
        "wrapped": prefixed(state, "module._orig_mod.model."),
        "lightning": {"state_dict": {**prefixed(state, "net."), "criterion.weight": torch.ones(9)}},
        "averaged": {"state_dict": noise, "state_dict_ema": state, "args": Path("x")},
    }
    for name, content in contents.items():
        torch.save(content, folder / f"{name}.pth")
        yield name, str(folder / f"{name}.pth")
    save_file(state, folder / "model.safetensors")
    yield "safetensors", str(folder / "model.safetensors")
    yield "local-dir", f"local-dir:{folder}"


def test_a_backbone_in_every_form(
    detector: nn.Module, theirs: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = convert_weights(load_architecture("mobilenetv2_100").scaled(0.5), theirs)
    backbone = detector.backbone.bottom_up  # type: ignore[union-attr]
    names = [name for name in backbone.state_dict() if "num_batches" not in name]  # type: ignore[operator,union-attr]
    caplog.set_level(logging.INFO, "backbones.states")
    for form, path in forms(theirs, tmp_path):
        for value in backbone.state_dict().values():  # type: ignore[operator,union-attr]
            value.zero_()
        DetectorCheckpointer(detector).load(path)
        found = backbone.state_dict()  # type: ignore[operator,union-attr]
        assert all(torch.equal(found[name], expected[name]) for name in names), form
    assert "the averaged weights under 'state_dict_ema' are taken" in caplog.text
    assert "left out: criterion.weight" in caplog.text


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module.model.detector."])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_detector_of_a_wrapper(
    detector: nn.Module, tmp_path: Path, prefix: str, suffix: str
) -> None:
    """All of it: strict loading has nothing to complain of."""
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    path = tmp_path / f"model.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": prefixed(state, prefix)}, path)
    else:
        save_file(prefixed(state, prefix), path)
    for value in detector.state_dict().values():
        value.zero_()
    DetectorCheckpointer(detector, strict=True).load(str(path))
    assert all(torch.equal(value, state[name]) for name, value in detector.state_dict().items())


def test_half_precision(detector: nn.Module, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    half = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    torch.save({"model": half, "iteration": 3}, tmp_path / "half.pth")
    DetectorCheckpointer(detector, strict=True).load(str(tmp_path / "half.pth"))
    for name, value in detector.state_dict().items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, half[name].to(value.dtype))


@pytest.mark.parametrize("resume", [False, True])
def test_numbers_that_are_none(detector: nn.Module, tmp_path: Path, resume: bool) -> None:
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    name = "backbone.bottom_up.layers.1.expand.conv.weight"
    state[name].view(-1)[0] = float("nan")
    torch.save({"model": state, "iteration": 3}, tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    checkpointer = DetectorCheckpointer(detector, tmp_path if resume else "")
    with pytest.raises(UserError, match=rf"NaN or infinity in 1 tensors: {name} \(1 of \d+\)"):
        checkpointer.resume_or_load(str(tmp_path / "model_final.pth"), resume=resume)


def test_a_quantised_detector(detector: nn.Module, tmp_path: Path) -> None:
    state = dict(detector.state_dict())
    name = "backbone.bottom_up.stem.conv.weight"
    torch.save({"model": {**state, name: state[name].to(torch.int8)}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"not floating point, .*: {name} \(int8\)"):
        DetectorCheckpointer(detector).load(str(tmp_path / "x.pth"))


def test_another_network(detector: nn.Module, tmp_path: Path) -> None:
    state = timm.create_model("spnasnet_100").state_dict()
    save_file(prefixed(dict(state), "module."), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"first that differ: conv_stem.weight is 32×3×3×3, stem"):
        DetectorCheckpointer(detector).load(str(tmp_path / "x.safetensors"))


def test_names_of_the_hub_are_addresses(tmp_path: Path, theirs: State) -> None:
    save_file(theirs, tmp_path / "model.safetensors")
    path = PathManager.get_local_path(f"local-dir:{tmp_path}")
    assert path == str(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="no folder at"):
        PathManager.get_local_path("local-dir:/nowhere/at/all")
