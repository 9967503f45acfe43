"""Every engine computes what PyTorch computes, and says what it cannot do."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from backbones import UserError, build_classifier, load_architecture
from backbones.architecture import LayerSpec
from backbones.blocks import init_weights, make_layer
from backbones.extras import require
from backbones.inference import ENGINES, Session, make_engine
from backbones.inference.board.turns import visit, visit_and_share
from backbones.inference.hardware import available_cores
from backbones.inference.measurement import Measurement


def mbconv(stride: int) -> nn.Module:
    spec = LayerSpec(16 if stride == 1 else 24, stride=stride, expansion=3, se_ratio=0.25)
    module = make_layer(16, spec, nn.BatchNorm2d)
    init_weights(module, residual_scale=1.0)
    return module.eval()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_layer_equals_pytorch(engine: str, stride: int) -> None:
    torch.manual_seed(0)
    module, image = mbconv(stride), torch.randn(1, 16, 15, 20)
    session = make_engine(engine).compile(lambda: module, [image]).load()
    with torch.no_grad():
        expected = module(image)
    torch.testing.assert_close(session.outputs(), [expected], rtol=1e-4, atol=1e-5)
    times = session.times(3)
    assert len(times) == 3 and min(times) > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_more_threads_than_cores_get_a_word(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    make_engine(engine, threads=available_cores())
    assert not caplog.records
    make_engine(engine, threads=available_cores() + 1)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"may use {available_cores()} cores" in record.getMessage()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spnas_100", "efficientnet_lite0"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_equals_pytorch(engine: str, name: str) -> None:
    """Of symmetric padding, and of TensorFlow's."""
    torch.manual_seed(0)
    network = build_classifier(load_architecture(name), 10, residual_scale=1.0).eval()
    image = torch.randn(1, 3, 64, 64)
    session = make_engine(engine).compile(lambda: network, [image]).load()
    with torch.no_grad():
        expected = network(image)
    torch.testing.assert_close(session.outputs(), [expected], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_a_converted_model_is_kept(engine: str, tmp_path: Path) -> None:
    image, path = torch.randn(1, 16, 8, 8), tmp_path / "layer.model"
    module = mbconv(1)
    first = make_engine(engine).compile(lambda: module, [image], path).load().outputs()

    def fail() -> nn.Module:
        raise AssertionError("converted again")

    again = make_engine(engine).compile(fail, [image], path).load().outputs()
    torch.testing.assert_close(again, first)


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_operators(engine: str) -> None:
    module = mbconv(1)
    operators = make_engine(engine).compile(lambda: module, [torch.randn(1, 16, 8, 8)]).operators()
    convolutions = [operator for operator in operators if "conv" in operator.kind.lower()]
    assert len(convolutions) >= 5  # expansion, depthwise, two of SE, projection
    assert min(operator.runtime for operator in operators) >= 0
    assert sum(operator.runtime for operator in convolutions) > 0


def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown engine 'tensorrt'; expected one of torch, onnx"):
        make_engine("tensorrt")
    with pytest.raises(
        UserError, match="--device is cuda; LiteRT runs on cpu here: use --device cpu"
    ):
        make_engine("litert", "cuda")
    with pytest.raises(UserError, match="--threads is 0"):
        make_engine("torch", threads=0)
    module = mbconv(1)
    program = make_engine("litert").compile(lambda: module, [torch.randn(1, 16, 8, 8)])
    with pytest.raises(UserError, match="reports no operators"):
        program.operators()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device is cuda, but PyTorch finds no CUDA device"):
        make_engine("torch", "cuda")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="--device is cuda, but this ONNX Runtime has only CPUExec"):
        make_engine("onnxruntime", "cuda")
    with pytest.raises(UserError, match=r"'no_such_engine'.*pip install onnx onnxruntime onnxscri"):
        require("torch", "no_such_engine", extra="onnxruntime")


class Clock(Session):
    """Takes the times that it is given, in ms."""

    def __init__(self, times: list[float]) -> None:
        self.left = list(times)
        self.asked: list[int] = []

    def run(self) -> None:
        raise NotImplementedError

    def outputs(self) -> list[torch.Tensor]:
        raise NotImplementedError

    def times(self, count: int) -> list[float]:
        self.asked.append(count)
        return [self.left.pop(0) for _ in range(count)]


def test_a_visit_is_the_median_after_warming_up() -> None:
    clock = Clock([500.0, 10.0, 12.0, 90.0])
    assert visit(clock) == 12.0
    assert clock.asked == [1, 1, 2]
    slow = Clock([9e3, 8e3, 7e3])
    assert visit(slow) == 7.5e3
    assert slow.asked == [1, 1, 1]
    fast = Clock([0.01] * 60)
    visit(fast)
    assert fast.asked == [1, 1, 49]


class Sleeper(Session):
    """Computes for a part of the time alone, as beside other work."""

    def run(self) -> None:
        end = time.thread_time() + 3e-3
        while time.thread_time() < end:
            pass
        time.sleep(6e-3)

    def outputs(self) -> list[torch.Tensor]:
        raise NotImplementedError


def test_the_part_of_a_core_that_a_visit_had() -> None:
    runtime, share = visit_and_share(Sleeper())
    assert runtime >= 9
    assert 0 < share < 0.45  # a third, and less where others compute as well
    assert visit_and_share(Sleeper(), "cuda")[1] == 1.0  # there a process waits


def test_measurement() -> None:
    found = Measurement.of([10.0, 11.0, 12.0, 13.0, 40.0])
    assert found.runtime == 12.0
    assert found.spread == pytest.approx((13 - 11) / 2 / 12)
    assert Measurement.of([3.0]) == Measurement(3.0, 0.0, 1.0)
    assert Measurement.of([3.0, 3.0, 3.0], [0.5, 0.7, 1.0]) == Measurement(3.0, 0.0, 0.7)


def test_files_are_measured_where_the_converter_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on boards and Windows, which have wheels of LiteRT, and none of what makes its files."""
    image, path = torch.randn(1, 16, 8, 8), tmp_path / "layer.model"
    module = mbconv(1)
    make_engine("litert").compile(lambda: module, [image], path)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name.startswith("litert_torch") else real(name, *rest),
    )
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    engine = make_engine("litert")
    assert engine.compile(lambda: module, [image], path).load().times(1)[0] > 0
    with pytest.raises(UserError, match="'litert_torch' is not installed"):
        engine.check_conversion()
    with pytest.raises(UserError, match="'litert_torch' is not installed"):
        engine.compile(lambda: module, [image])
