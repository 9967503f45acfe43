"""What engines compute in int8 and fp16, and int8 parts as they run inside a network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from backbones import UserError
from backbones.architecture import LayerSpec
from backbones.blocks import init_weights, make_layer
from backbones.deployment.formats.onnx import to_onnx
from backbones.deployment.pools import with_global_pools
from backbones.deployment.quantisation import onnx_int8
from backbones.inference import make_engine
from backbones.inference.examples import calibration, quantised_maps
from backbones.inference.onnx_parts import inside_network
from backbones.inference.onnx_runtime import OnnxRuntimeProgram

IMAGE = torch.randn(1, 16, 15, 20, generator=torch.Generator().manual_seed(1))


def mbconv(stride: int = 1) -> nn.Module:
    spec = LayerSpec(16 if stride == 1 else 24, stride=stride, expansion=3, se_ratio=0.25)
    module = make_layer(16, spec, nn.BatchNorm2d)
    init_weights(module, residual_scale=1.0)
    return module.eval()


def kinds(model: bytes) -> list[str]:
    """Operations of a model as ONNX Runtime runs it."""
    found = onnx.load_from_string(model)
    shapes = [[side.dim_value for side in i.type.tensor_type.shape.dim] for i in found.graph.input]
    inputs = [torch.zeros(1, s[3], s[1], s[2]) if s[3] == 16 else torch.zeros(s) for s in shapes]
    program = OnnxRuntimeProgram(model, inputs, "cpu", 1)
    return [operator.kind for operator in program.operators()]


@pytest.mark.parametrize(
    ("engine", "precision", "error"),
    [
        ("onnxruntime", "int8", 0.06),
        ("onnxruntime", "fp16", 0.003),
        ("litert", "int8", 0.06),
        ("litert", "fp16", 0.003),
    ],
)
def test_a_layer_is_near_pytorchs(engine: str, precision: str, error: float) -> None:
    """To the rounding of the precision; single precision would be a thousand times nearer."""
    torch.manual_seed(0)
    module = mbconv()
    found = make_engine(engine, precision=precision).compile(lambda: module, [IMAGE]).load()
    with torch.no_grad():
        expected = module(IMAGE)
    (output,) = found.outputs()
    assert output.dtype == torch.float32
    assert 1e-5 < (output - expected).norm() / expected.norm() < error
    assert min(found.times(2)) > 0


def border(model: bytes, name: str) -> tuple[float, int]:
    """Scale and zero point of a tensor, from the graph that quantises it."""
    constants = {
        tensor.name: float(numpy_helper.to_array(tensor))
        for tensor in onnx.load_from_string(model).graph.initializer
        if not tensor.dims
    }
    return constants[f"{name}_scale"], int(constants[f"{name}_zero_point"])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_part_passes_int8_maps_on(stride: int) -> None:
    """It computes what the whole file does, without what that has at its border."""
    torch.manual_seed(0)
    whole = onnx_int8(to_onnx(mbconv(stride), [IMAGE]), calibration([IMAGE]))
    middle = inside_network(whole, "middle")
    graph = onnx.load_from_string(whole).graph
    scale, zero = border(whole, graph.input[0].name)
    maps = (IMAGE / scale).round().add(zero).clamp(0, 255)
    expected = OnnxRuntimeProgram(whole, [(maps - zero) * scale], "cpu", 1).load().outputs()[0]
    import onnxruntime

    session = onnxruntime.InferenceSession(middle, providers=["CPUExecutionProvider"])
    given = maps.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    (found,) = session.run(None, {session.get_inputs()[0].name: given})
    assert found.dtype == np.uint8
    assert found.shape[-1] == expected.shape[1]
    scale, zero = border(whole, graph.output[0].name)
    ours = torch.from_numpy((found.astype(np.float32) - zero) * scale).permute(0, 3, 1, 2)
    # a rounding of a half may fall to either side
    torch.testing.assert_close(ours, expected, rtol=0, atol=1.01 * scale)
    assert (ours == expected).float().mean() > 0.99


def test_nothing_is_quantised_or_turned_at_the_border() -> None:
    whole = onnx_int8(to_onnx(mbconv(2), [IMAGE]), calibration([IMAGE]))
    at_border = {"QuantizeLinear", "DequantizeLinear", "Transpose"}
    found = {place: kinds(inside_network(whole, place)) for place in ("whole", "middle")}
    assert set(found["whole"]) >= at_border
    assert not set(found["middle"]) & at_border
    assert found["middle"] == [kind for kind in found["whole"] if kind not in at_border]
    first, last = (onnx.load_from_string(inside_network(whole, p)) for p in ("first", "last"))
    uint8 = onnx.TensorProto.UINT8

    def is_int8(entry: onnx.ValueInfoProto) -> bool:
        return bool(entry.type.tensor_type.elem_type == uint8)

    assert [is_int8(first.graph.input[0]), is_int8(first.graph.output[0])] == [False, True]
    assert [is_int8(last.graph.input[0]), is_int8(last.graph.output[0])] == [True, False]


class Means(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        """Two global pools, and two means that are none."""
        return [x.mean((2, 3), keepdim=True), x.mean((2, 3)), x.mean(1), x.mean((1, 2, 3))]


def test_means_over_positions_become_pools() -> None:
    model = onnx.load_from_string(to_onnx(Means(), [IMAGE]))
    pooled = with_global_pools(model)
    kept = [node.op_type for node in pooled.graph.node]
    count = {kind: kept.count(kind) for kind in ("ReduceMean", "Flatten")}
    assert kept.count("GlobalAveragePool") == 2
    assert count == {"ReduceMean": 2, "Flatten": 1}
    assert sum(node.op_type == "ReduceMean" for node in model.graph.node) == 4
    found = OnnxRuntimeProgram(pooled.SerializeToString(), [IMAGE], "cpu", 1).load().outputs()
    torch.testing.assert_close(found, Means()(IMAGE), rtol=1e-5, atol=1e-6)
    int8 = onnx_int8(to_onnx(mbconv(), [IMAGE]), calibration([IMAGE]))
    assert "QLinearGlobalAveragePool" in kinds(inside_network(int8, "middle"))


def test_examples_do_not_change() -> None:
    before = torch.get_rng_state()
    (first, *_), (again, *_) = calibration([IMAGE]), calibration([IMAGE])
    assert np.array_equal(first[0], again[0])
    assert torch.equal(torch.get_rng_state(), before)
    for dtype in ("int8", "uint8"):
        maps = quantised_maps(IMAGE.numpy(), dtype)
        assert (maps.shape, maps.dtype) == ((1, 15, 20, 16), dtype)
        assert np.ptp(maps.astype(int)) > 180


def test_what_an_engine_lacks_is_said() -> None:
    with pytest.raises(UserError, match="--precision is int8; PyTorch has fp32 on cpu: use --prec"):
        make_engine("torch", precision="int8")
    with pytest.raises(UserError, match="is int4; LiteRT has fp32 and fp16 and int8 on cpu"):
        make_engine("litert", precision="int4")
