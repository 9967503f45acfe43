"""Objects in checkpoints: harmless ones are read, none runs, and others are refused by name."""

from __future__ import annotations

import argparse
import collections
import os
import sys
import types
from itertools import accumulate
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from yacs.config import CfgNode

from backbones import UserError
from backbones.weights import read_checkpoint


def stranger(name: str, *bases: type, **members: Any) -> Any:
    """A class of a package that is not installed, as far as pickle can tell."""
    module, _, last = name.rpartition(".")
    for package in accumulate(module.split("."), "{}.{}".format):
        home = sys.modules.setdefault(package, types.ModuleType(package))
    kind = type(last, bases or (object,), {"__module__": module, **members})
    setattr(home, last, kind)
    return kind


def attribute_dict(**items: Any) -> Any:
    found = stranger("lightning.fabric.utilities.data.AttributeDict", dict)()
    found.update(items)
    return found


@pytest.fixture(autouse=True)
def _forget_strangers() -> Any:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("lightning", "mine"):
            del sys.modules[name]


OBJECTS: dict[str, Any] = {
    "timm's arguments": argparse.Namespace(lr=0.1, output=Path("/out"), sizes=[1, 2]),
    "Windows' path": PureWindowsPath("C:/x"),
    "default dictionary": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1, 2], maxlen=3),
    "counter": collections.Counter("aab"),
    "sets": {1, 2},
    "OmegaConf": OmegaConf.create({"a": {"b": [1, 2.5, "x", None, True]}}),
    "yacs": CfgNode({"A": {"B": 1}}),
    "type": int,
    "range": range(3),
    "simple namespace": types.SimpleNamespace(a=1),
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_objects(name: str, zipped: bool, tmp_path: Path) -> None:
    content = {"model": {"a": torch.ones(2)}, "other": OBJECTS[name], "list": [OBJECTS[name]]}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    before = set(torch.serialization.get_safe_globals())
    assert torch.equal(read_checkpoint(tmp_path / "x.pth")["model"]["a"], torch.ones(2))
    assert set(torch.serialization.get_safe_globals()) == before


def test_hyper_parameters_of_lightning(tmp_path: Path) -> None:
    torch.save({"hyper_parameters": attribute_dict(lr=0.1)}, tmp_path / "x.ckpt")
    assert read_checkpoint(tmp_path / "x.ckpt") == {"hyper_parameters": {"lr": 0.1}}


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.5),
        np.float32(2),
        np.int64(7),
        np.bool_(True),
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.float16([1.5, 2]),
        np.zeros((0, 3)),
    ],
    ids=str,
)
def test_numbers_of_numpy(value: Any, tmp_path: Path) -> None:
    torch.save({"value": value, "inside": [{"value": value}]}, tmp_path / "x.pth")
    content = read_checkpoint(tmp_path / "x.pth")
    for found in (content["value"], content["inside"][0]["value"]):
        assert np.array_equal(np.asarray(found), value)
        assert np.shape(found) == np.shape(value)


def test_a_state_dict_of_numpy(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).random((3, 2), dtype=np.float32)
    torch.save({"state_dict": {"a.weight": weight}}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth")["state_dict"]["a.weight"]
    assert np.array_equal(found.numpy(), weight)


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["plain", "in a namespace", "in an array"])
def test_nothing_runs(where: str, zipped: bool, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    evil: Any = Runs(os.system, f"touch {marker}")
    if where == "in a namespace":
        evil = argparse.Namespace(lr=evil)
    elif where == "in an array":
        evil = np.array([evil], dtype=object)
    torch.save({"args": evil}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    message = "an array of" if where == "in an array" else r"holds an object '\w+.system', which is"
    with pytest.raises(UserError, match=rf"'.*x.pth' .*{message}"):
        read_checkpoint(tmp_path / "x.pth")
    assert not marker.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, os.remove])
def test_no_stand_in_calls(function: Any, tmp_path: Path) -> None:
    torch.save({"args": Runs(function, "1")}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds an object '"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_whole_model_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    message = r"'torch.nn.modules.linear.Linear', .* torch.save\(model.state_dict\(\), 'weights.pth"
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "x.pth")


def test_an_object_of_an_unknown_program(tmp_path: Path) -> None:
    torch.save({"model": stranger("mine.train.Config")()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds an object 'mine.train.Config', which"):
        read_checkpoint(tmp_path / "x.pth")


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"a": np.array([{"b": 1}], dtype=object)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*an array of"):
        read_checkpoint(tmp_path / "x.pth")
