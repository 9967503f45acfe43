"""What reports of the probe mean, where no stand-in can play the fault."""

from __future__ import annotations

from typing import Any

import pytest

from search.doctor import libraries

TORCH = {"version": "2.9.1", "cuda": "13.0", "threads": 4}


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)


@pytest.mark.parametrize(
    ("torch", "report", "driver", "expected"),
    [
        ({}, {"names": ["H100 (78 GiB)", "H100 (78 GiB)"]}, True, ("ok", "H100 (78 GiB), H100")),
        ({}, {"names": [], "warnings": []}, False, ("ok", "none; runs take the CPU")),
        ({}, {"names": [], "warnings": ["The driver is too old"]}, False,
         ("note", "none that PyTorch can use: The driver is too old")),
        ({}, {"error": "RuntimeError: CUDA error"}, True,
         ("note", "none that PyTorch can use: RuntimeError: CUDA error")),
        ({}, {"names": [], "warnings": []}, True, ("note", "none that PyTorch can use")),
        ({"cuda": ""}, {"names": [], "warnings": []}, True, ("note", "this PyTorch is for")),
        ({"cuda": ""}, {"names": [], "warnings": []}, False, ("ok", "none; this PyTorch is for")),
    ],
)  # fmt: skip
def test_gpus(
    torch: dict[str, str],
    report: dict[str, Any],
    driver: bool,
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/bin/nvidia-smi" if driver else None)
    found = libraries.gpus({"torch": {**TORCH, **torch}, "gpus": report})
    assert found.status == expected[0]
    assert found.text.startswith(expected[1])
    assert bool(found.fix) == (found.status == "note")


def detectron2(**report: Any) -> dict[str, dict[str, Any]]:
    base = {"version": "0.6+spnas.2", "location": "/site", "pure": True, "lacks": ["x"]}
    return {
        "torch": TORCH,
        "gpus": {"names": ["H100"]},
        "detectron2": {**base, **report},
        "project": {"wheel": "0.6+spnas.2"},
    }


def test_a_wheel_of_an_older_spnas() -> None:
    found = libraries.detectron2(detectron2(version="0.6+spnas.1"))
    assert (found.status, found.fix) == ("note", "spnas install-detectron2")
    assert found.text == "0.6+spnas.1, built by spnas; this spnas builds 0.6+spnas.2"


def test_operators_for_the_cpu_beside_a_gpu() -> None:
    reports = detectron2(version="0.6", pure=False, lacks=[], cuda=False)
    found = libraries.detectron2(reports)
    assert found.status == "note"
    assert "they are for the CPU alone, and there is a GPU" in found.text
    reports["gpus"] = {"names": []}
    assert libraries.detectron2(reports).status == "ok"


def test_operators_that_a_build_lacks() -> None:
    found = libraries.detectron2(detectron2(pure=False, lacks=["rotated boxes"], cuda=True))
    assert found.status == "ok"
    assert found.text.endswith("with compiled operators, but not rotated boxes")


def test_detectron2_where_torch_is_broken() -> None:
    reports = {**detectron2(error="ImportError: x"), "torch": {"error": "OSError: y"}}
    found = libraries.detectron2(reports)
    assert (found.status, found.fix) == ("broken", "mend torch first")


@pytest.mark.parametrize(
    ("report", "status", "text"),
    [
        ({"version": "1.30", "providers": ["A", "B"], "lacks": []}, "ok", "1.30, on A, B"),
        ({"version": "1.30", "providers": ["A"], "lacks": ["onnx"]}, "note", "1.30, but not onnx"),
        ({"missing": True}, "note", "not installed"),
        ({"error": "ImportError: x"}, "note", "cannot be imported: ImportError: x"),
    ],
)  # fmt: skip
def test_an_engine(report: dict[str, Any], status: str, text: str) -> None:
    found = libraries.onnxruntime(report)
    assert (found.status, found.text) == (status, text)
    wanted = "python -m pip install onnx onnxruntime onnxscript" if status == "note" else ""
    assert found.fix == wanted


@pytest.mark.parametrize(
    ("report", "fix"),
    [
        ({"missing": True}, "python -m pip install ai-edge-litert 'backports.strenum<1.3'"),
        ({"version": "2.3", "lacks": ["litert-torch"]},
         "python -m pip install ai-edge-quantizer litert-torch"),
        ({"version": "2.3", "lacks": []}, ""),
    ],
)  # fmt: skip
def test_litert(report: dict[str, Any], fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packaging.markers.Marker.evaluate", lambda *_: True)
    found = libraries.litert(report)
    assert (found.status, found.fix) == ("note" if fix else "ok", fix)


def test_a_converter_without_wheels_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packaging.markers.Marker.evaluate", lambda *_: False)
    found = libraries.litert({"version": "2.3", "lacks": ["litert-torch"]})
    assert (found.status, found.fix) == ("ok", "")
    assert "has wheels for Linux on x86_64 with Python 3.10 to 3.13 alone" in found.text


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("online", "0.22, online: logged in; runs go online"),
        ("offline", "0.22, offline: runs are kept here, and wandb sync uploads them"),
        ("disabled", "0.22, disabled: runs are not logged"),
        ("shared", "0.22, shared: shared"),
    ],
)
def test_wandb(mode: str, text: str) -> None:
    reports = {**detectron2(), "wandb": {"version": "0.22", "mode": mode}}
    found = libraries.wandb(reports)
    assert (found.status, found.text) == ("ok", text)


def test_wandb_is_not_looked_at_without_detectron2() -> None:
    reports = {**detectron2(missing=True), "wandb": {"error": "ModuleNotFoundError: x"}}
    assert libraries.wandb(reports).text == "not looked at: Detectron2 does not work"
    reports = {**detectron2(), "wandb": {"error": "ImportError: wandb"}}
    assert libraries.wandb(reports).text == "not looked at: ImportError: wandb"


def test_a_checkout_that_is_not_installed() -> None:
    found = libraries.packages({"error": "PackageNotFoundError: spnas"})
    assert found.status == "note"
    assert found.fix == "python -m pip install --no-deps --editable . at the top of the checkout"
