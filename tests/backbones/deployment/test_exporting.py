"""Files of all formats and precisions do what PyTorch does, or are not written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from backbones import UserError
from backbones.deployment import exporting
from backbones.deployment.checking import Agreement, compare
from backbones.deployment.contract import Contract
from backbones.deployment.exporting import check_request, convert, write_exported
from backbones.deployment.formats import SUFFIXES, Format
from backbones.deployment.quantisation import quantised
from backbones.deployment.runtimes import Runtime, open_exported, open_model
from tests.backbones.deployment.small import CLASSES, SIDE, small_exportable

Images = Sequence[np.ndarray]


@pytest.fixture(scope="module")
def images() -> Images:
    """Eight in the range of normalised pixels."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32) for _ in range(8)]


@pytest.fixture(scope="module")
def models() -> dict[Format, bytes]:
    """The small classifier in every format."""
    return {kind: convert(small_exportable(plain=True), kind) for kind in SUFFIXES}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_file_does_what_pytorch_does(
    kind: Format,
    models: dict[Format, bytes],
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = small_exportable(plain=True)
    monkeypatch.setattr(exporting, "convert", lambda *_: models[kind])
    path = tmp_path / f"small{SUFFIXES[kind]}"
    contract = write_exported(network, path, kind, "fp32", images, judge=lambda _: {"top1": 3})
    assert contract.checks["agreement"]["images"] == len(images) + (0 if kind == "litert" else 3)
    assert contract.checks["agreement"]["largest"] < 1e-5
    assert contract.checks["megabytes"] == pytest.approx(path.stat().st_size / 1e6, abs=1e-3)
    assert contract.checks["latency"]["milliseconds"] > 0
    assert contract.checks["top1"] == 3
    assert contract.labels == tuple("abcde")
    assert Contract.load(path) == contract
    runtime = open_exported(path)
    (given,), (logits,) = runtime.inputs, runtime.outputs
    assert (given.name, logits.name) == ("image", "logits")
    assert given.shape == ((1, SIDE, SIDE, 3) if kind == "litert" else (None, 3, None, None))
    with torch.no_grad():
        expected = network.module(torch.from_numpy(images[0])).numpy()
    found = runtime.run({"image": images[0]})["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert open_exported(path.with_suffix(".json")).inputs == runtime.inputs


def test_no_batch_norm_is_left_and_the_opset_is_stated(models: dict[Format, bytes]) -> None:
    model = onnx.load_from_string(models["onnx"])
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert [entry.version for entry in model.opset_import if not entry.domain] == [exporting.OPSET]


@pytest.mark.parametrize("kind", ["onnx", "litert"])
def test_int8_and_fp16_are_near(kind: Format, models: dict[Format, bytes], images: Images) -> None:
    network = small_exportable(plain=True)
    sizes = {}
    for precision, limit in (("fp16", 5e-3), ("int8", 0.2)):
        model = quantised(models[kind], kind, precision, [(image,) for image in images])  # type: ignore[arg-type]
        agreement = compare(network.module, open_model(model, kind), images)
        assert 1e-6 < agreement.mean < limit
        sizes[precision] = len(model)
    assert sizes["fp16"] < len(models[kind])
    if kind == "litert":
        runtime = open_model(model, kind)
        assert (runtime.inputs[0].dtype, runtime.outputs[0].dtype) == ("int8", "int8")
        assert runtime.inputs[0].scale
    else:
        kinds = [node.op_type for node in onnx.load_from_string(model).graph.node]
        assert kinds.count("QuantizeLinear") > 10


def test_preprocessing_inside_takes_pixels(images: Images) -> None:
    network = small_exportable(plain=True)
    inside = network.with_preprocessing_inside()
    assert inside.preprocessing.mean is None
    pixels = torch.randint(0, 256, (1, 3, SIDE, SIDE)).float()
    mean, std = (
        torch.tensor(values)[:, None, None] for values in ([120.0, 115, 100], [60.0, 55, 50])
    )
    with torch.no_grad():
        expected = network.module((pixels - mean) / std)
        torch.testing.assert_close(inside.module(pixels), expected)
    assert inside.with_preprocessing_inside() is inside


class Wrong(Runtime):
    """Answers with what it was given."""

    def __init__(self, runtime: Runtime, answer: float) -> None:
        self.inputs, self.outputs = runtime.inputs, runtime.outputs
        self.answer = answer

    def infer(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.full((len(arrays[0]), CLASSES), self.answer, np.float32)]


@pytest.mark.parametrize("answer", [3.0, float("nan")])
def test_a_file_that_differs_is_not_left(
    answer: float,
    models: dict[Format, bytes],
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "convert", lambda *_: models["onnx"])
    monkeypatch.setattr(exporting, "open_model", lambda m, k: Wrong(open_model(m, k), answer))
    with pytest.raises(UserError, match="differs from PyTorch by .* it is not written"):
        write_exported(small_exportable(plain=True), tmp_path / "n.onnx", "onnx", "fp32", images)
    assert not list(tmp_path.iterdir())


class Unknown(nn.Module):
    """Has an operator that no format knows."""

    def forward(self, image: Tensor) -> Tensor:
        """The sum of the eigenvalues of every channel."""
        return torch.linalg.eigvals(image).real.sum((1, 2))


@pytest.mark.parametrize("kind", ["onnx", "litert"])
def test_an_operator_that_a_format_lacks(kind: Format, tmp_path: Path, images: Images) -> None:
    network = dataclasses.replace(small_exportable(), module=Unknown().eval())
    path = tmp_path / f"n{SUFFIXES[kind]}"
    with pytest.raises(UserError, match=rf"--format {kind} cannot hold this network \(") as error:
        write_exported(network, path, kind, "fp32", images)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_requests_are_checked_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"writes \.tflite files; name it 'a/n\.tflite'"):
        check_request(Path("a/n.onnx"), "litert", "fp32")
    with pytest.raises(UserError, match="torch does not have; use --format onnx or litert"):
        check_request(Path("n.pt2"), "torch", "int8")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="'onnx' is not installed; .*pip install onnx onnxruntime"):
        check_request(Path("n.onnx"), "onnx", "fp32")


def test_int8_needs_images(models: dict[Format, bytes]) -> None:
    with pytest.raises(UserError, match="int8 needs images to calibrate on; .*--calibration"):
        quantised(models["onnx"], "onnx", "int8")


def test_agreement_has_limits() -> None:
    Agreement(3, 5e-5, 1e-5).check("fp32", "it")
    Agreement(3, 0.9, 0.3).check("int8", "it")
    for precision, agreement in (("fp32", (2e-4, 0)), ("fp16", (0.1, 0)), ("int8", (0.1, 0.6))):
        with pytest.raises(UserError, match="it differs .* on 3 images; .* fp32|another format"):
            Agreement(3, *agreement).check(precision, "it")  # type: ignore[arg-type]
