"""A contract survives its file, and a damaged one is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backbones import UserError
from backbones.deployment.contract import (
    Contract,
    Network,
    Preprocessing,
    Resizing,
    TensorSpec,
    contract_path,
)
from backbones.deployment.runtimes import open_exported


def contract() -> Contract:
    image = TensorSpec("image", (None, 3, 48, 48), "int8", "NHWC", scale=0.5, zero_point=-3)
    return Contract(
        "backbone",
        "litert",
        "int8",
        {"network": Network("b.tflite", (image,), (TensorSpec("res2", (1, 8), stride=4),))},
        Preprocessing(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), resizing=Resizing("none", 48)),
        labels=("cat", "dog"),
        checks={"megabytes": 1.5},
    )


def test_it_survives_its_file(tmp_path: Path) -> None:
    contract().save(tmp_path / "b.json")
    assert Contract.load(tmp_path / "b.json") == contract()
    assert Contract.load(tmp_path / "b.tflite") == contract()
    assert contract_path("x/b.onnx") == Path("x/b.json")
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["schema_version"] == 1
    assert written["networks"]["network"]["inputs"][0]["shape"] == [None, 3, 48, 48]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "int4"}, "precision is 'int4'; expected one of 'fp32', 'fp16', 'int8'"),
        ({"schema_version": 9}, "schema_version is 9, this release reads 1"),
        ({"networks": {}}, "networks is {}; expected at least one network"),
        ({"kind": None}, "kind is None; expected one of 'backbone'"),
    ],
)
def test_a_damaged_one_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "b.json"
    contract().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        Contract.load(path)


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no exported network at '.*n\.onnx'; check the path"):
        open_exported(tmp_path / "n.onnx")
    with pytest.raises(UserError, match=r"'n\.pth' is no exported network; expected .*\.tflite"):
        open_exported("n.pth")
    for name in ("n.onnx", "n.tflite", "n.pt2"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(UserError, match=rf"cannot load '.*{name}' \(.*export it again"):
            open_exported(tmp_path / name)
