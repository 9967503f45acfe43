from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from backbones.errors import UserError
from detection.engine.checkpoint import Checkpointer
from detection.engine.checkpoint_files import last_iteration

OURS = "detection.engine.checkpoint"


def _model(classes: int = 3) -> nn.Module:
    torch.manual_seed(classes)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, classes))


def _equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_round_trip_with_checkpointables(tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(2, 4)).sum().backward()
    optimizer.step()
    Checkpointer(model, tmp_path, optimizer=optimizer).save("model_0000004", iteration=4)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    assert last_iteration(tmp_path) == 4

    other = _model()
    restored = torch.optim.SGD(other.parameters(), lr=0.5, momentum=0.9)
    rest = Checkpointer(other, tmp_path, optimizer=restored).resume_or_load("", resume=True)
    assert rest == {"iteration": 4}
    assert _equal(model, other)
    assert restored.param_groups[0]["lr"] == 0.1
    assert torch.equal(
        restored.state_dict()["state"][0]["momentum_buffer"],
        optimizer.state_dict()["state"][0]["momentum_buffer"],
    )


def test_numpy_states_stay_readable(tmp_path: Path) -> None:
    class Scheduler:
        def __init__(self) -> None:
            self.value: Any = {"best": np.float64(0.5), "history": [np.arange(3)]}

        def state_dict(self) -> dict[str, Any]:
            return self.value

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.value = state

    Checkpointer(_model(), tmp_path, scheduler=Scheduler()).save("model", score=np.float32(2))
    loaded = Scheduler()
    rest = Checkpointer(_model(), scheduler=loaded).load(str(tmp_path / "model.pth"))
    assert rest == {"score": 2.0}
    assert loaded.value["best"] == 0.5
    assert loaded.value["history"][0].tolist() == [0, 1, 2]


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert last_iteration(tmp_path) is None
    assert Checkpointer(_model(), tmp_path).resume_or_load("", resume=True) == {}


class _Foreign:
    """Not plain data."""


class _Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_unreadable_files(tmp_path: Path) -> None:
    Checkpointer(_model(), tmp_path).save("good")
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes((tmp_path / "good.pth").read_bytes()[:-200])
    foreign = tmp_path / "foreign.pth"
    torch.save({"model": _Foreign()}, foreign)
    broken = tmp_path / "broken.pkl"
    broken.write_bytes(b"\x80\x04abc")
    empty = tmp_path / "empty.pth"
    torch.save({"epoch": 3}, empty)
    for path in (truncated, foreign, broken, empty, tmp_path / "absent.pth"):
        with pytest.raises(UserError, match=path.name):
            Checkpointer(_model()).load(str(path))


def test_another_number_of_classes(tmp_path: Path, log_of: Callable[[str], list[str]]) -> None:
    Checkpointer(_model(3), tmp_path).save("model_final", iteration=9)
    path = str(tmp_path / "model_final.pth")
    lines = log_of(OURS)
    model = _model(7)
    Checkpointer(model).load(path)  # fine-tuning
    warnings = [line for line in lines if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert "2.weight (3×5 in the file, 7×5 in the model)" in warnings[0]
    assert torch.equal(model.state_dict()["0.weight"], _model(3).state_dict()["0.weight"])
    with pytest.raises(UserError, match="another number of classes"):
        Checkpointer(_model(7), strict=True).load(path)
    with pytest.raises(UserError, match="another number of classes"):
        Checkpointer(_model(7), tmp_path).resume_or_load("", resume=True)


def test_some_tensors_need_not_fit(tmp_path: Path) -> None:
    Checkpointer(_model(3), tmp_path).save("model_final")
    path = str(tmp_path / "model_final.pth")
    model = _model(7)
    Checkpointer(model, strict=True, optional=("2.",)).load(path)
    assert torch.equal(model.state_dict()["0.weight"], _model(3).state_dict()["0.weight"])
    with pytest.raises(UserError, match=r"2 tensors of the file have another shape: 2.weight"):
        Checkpointer(_model(7), strict=True, optional=("1.",)).load(path)


def test_every_homeless_tensor_is_named(tmp_path: Path, log_of: Callable[[str], list[str]]) -> None:
    state = {name: value for name, value in _model().state_dict().items() if name != "2.bias"}
    state |= {f"extra.{index:02d}": torch.zeros(1) for index in range(25)}
    torch.save(state, tmp_path / "weights.pth")
    lines = log_of(OURS)
    Checkpointer(_model()).load(str(tmp_path / "weights.pth"))
    assert lines[0] == f"INFO: Loaded 7 tensors from {tmp_path / 'weights.pth'}"
    missing, leftover = (line for line in lines if line.startswith("WARNING"))
    assert missing.endswith("1 tensors of the model are not in the file: 2.bias")
    assert leftover.endswith(
        "25 tensors of the file have no place: extra.00, extra.01, extra.02, …"
    )
    assert all(f"extra.{index:02d}" in lines[-1] for index in range(25))
    with pytest.raises(UserError, match=r"25 .* no place: extra.00, extra.01, extra.02, …; use"):
        Checkpointer(_model(), strict=True).load(str(tmp_path / "weights.pth"))


def test_another_architecture(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="another architecture"):
        Checkpointer(_model()).load(str(tmp_path / "other.pth"))


@pytest.mark.parametrize("suffix", ["pkl", "pth"])
def test_name_matching_heuristics(tmp_path: Path, suffix: str) -> None:
    """Detectron2's model-zoo files, and the same request in a .pth file."""
    source = _model()
    detector = nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": _model(4)})})
    state = {name: value.numpy() for name, value in source[:2].state_dict().items()}
    state.pop("1.num_batches_tracked")
    path = tmp_path / f"backbone.{suffix}"
    if suffix == "pkl":
        content = {"model": state, "__author__": "test", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(content))
    else:
        tensors = {name: torch.from_numpy(value) for name, value in state.items()}
        torch.save({"model": tensors, "matching_heuristics": True}, path)
    Checkpointer(detector).load(str(path))
    loaded = detector.state_dict()["backbone.bottom_up.0.weight"]
    assert torch.equal(loaded, source.state_dict()["0.weight"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("layout", ["zoo", "blobs", "imagenet", "pycls"])
def test_layouts_of_the_zoos(tmp_path: Path, layout: str, protocol: int) -> None:
    """Detectron2's own, Detectron's with and without blobs (both Caffe2's names), and pycls's."""
    weight = torch.rand(4, 3, 3, 3).numpy()
    conv = nn.Conv2d(3, 4, 3, bias=False)
    contents: dict[str, Any] = {
        "zoo": {"model": {"stem.conv1.weight": weight}, "__author__": "Detectron2 Model Zoo"},
        "blobs": {"blobs": {"conv1_w": weight, "conv1_w_momentum": weight}, "cfg": "MODEL: {}"},
        "imagenet": {"conv1_w": weight},
        "pycls": {"model_state": {"conv1.weight": torch.tensor(weight)}, "epoch": 3},
    }
    path = tmp_path / f"weights.{'pyth' if layout == 'pycls' else 'pkl'}"
    if layout == "pycls":
        torch.save(contents[layout], path)
    else:
        path.write_bytes(pickle.dumps(contents[layout], protocol))
    model = nn.ModuleDict({"stem": nn.ModuleDict({"conv1": conv})})
    Checkpointer(model, strict=True).load(str(path))
    assert np.array_equal(conv.weight.detach().numpy(), weight)


def test_weights_are_data(tmp_path: Path) -> None:
    """In every form that is accepted, a file that holds more than data is refused, not run."""
    marker = tmp_path / "ran"
    content = {"0.weight": _Runs(marker)}
    zoo = pickle.dumps({"model": content, "__author__": "somebody"}, protocol=2)
    (tmp_path / "zoo.pkl").write_bytes(zoo)
    (tmp_path / "blobs.pkl").write_bytes(pickle.dumps({"blobs": content}))
    (tmp_path / "pickled.pth").write_bytes(zoo)
    (tmp_path / "pickled.pyth").write_bytes(zoo)
    torch.save({"model": content}, tmp_path / "torch.pth")
    torch.save({"model_state": content}, tmp_path / "torch.pyth")
    torch.save({"model": content}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in tmp_path.glob("*.p*"):
        with pytest.raises(UserError, match=path.name) as caught:
            Checkpointer(_model()).load(str(path))
        assert "\n" not in str(caught.value)
        assert not marker.exists()
    for content in ([1], {"blobs": [1]}, {"model": {"a": "text"}, "__author__": "x"}, {1: 2}):
        (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match="holds no model weights"):
            Checkpointer(_model()).load(str(tmp_path / "zoo.pkl"))


def test_optimizer_of_another_configuration(tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Checkpointer(model, tmp_path, optimizer=optimizer).save("model_0000001", iteration=1)
    other = torch.optim.SGD([{"params": [parameter]} for parameter in model.parameters()], lr=0.1)
    with pytest.raises(UserError, match="optimizer state"):
        Checkpointer(model, tmp_path, optimizer=other).resume_or_load("", resume=True)


def test_a_new_run_takes_the_model_alone(tmp_path: Path) -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Checkpointer(model, tmp_path, optimizer=optimizer).save("model_final", iteration=9)
    fresh = torch.optim.SGD(model.parameters(), lr=0.7)
    path = str(tmp_path / "model_final.pth")
    Checkpointer(model, tmp_path / "new", optimizer=fresh).resume_or_load(path, resume=True)
    assert fresh.param_groups[0]["lr"] == 0.7


def test_with_the_main_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectron2's main branch notes the address while it loads, and reads in another method."""

    def load(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        assert self._parsed_url_during_load is None
        self._parsed_url_during_load = path
        rest = super(DetectionCheckpointer, self).load(path.split("?")[0], *args, **kwargs)
        self._parsed_url_during_load = None
        return rest

    def load_file(self: Any, filename: str) -> Any:
        assert self._parsed_url_during_load is not None
        content = self._torch_load(filename)
        if "?matching_heuristics=True" in self._parsed_url_during_load:
            content["matching_heuristics"] = True
        return content

    patches = {
        "load": load,
        "_load_file": load_file,
        "_torch_load": lambda self, name: torch.load(name, weights_only=False),
        "_parsed_url_during_load": None,
    }
    for name, value in patches.items():
        monkeypatch.setattr(DetectionCheckpointer, name, value, raising=False)
    Checkpointer(_model(), tmp_path).save("model_final", iteration=2)
    detector = nn.ModuleDict({"backbone": _model(4)})
    checkpointer = Checkpointer(detector, tmp_path)
    torch.save({"model": _Foreign()}, tmp_path / "foreign.pth")
    for name in ("model_final.pth", "foreign.pth", "absent.pth"):
        with pytest.raises(UserError, match=name):
            checkpointer.load(str(tmp_path / name))
    assert checkpointer.load(f"{tmp_path}/model_final.pth?matching_heuristics=True")
    weight = detector.state_dict()["backbone.0.weight"]
    assert torch.equal(weight, _model().state_dict()["0.weight"])
