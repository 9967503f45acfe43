"""A part of an int8 ONNX network as it runs inside it: int8 maps in and out, channels last."""

from __future__ import annotations

from typing import Any

from backbones.inference.base import Place


def inside_network(model: bytes, place: Place) -> bytes:
    """A quantised part that takes, and hands on, what layers of a network pass to each other.

    By itself, a part with QDQ nodes quantises its input and dequantises its output, and ONNX
    Runtime brings maps from channels first to channels last for its int8 kernels and back. Between
    the layers of a whole network it does none of that, so a table must not count it for each.

    Args:
        model: static int8 with QDQ nodes; inputs and outputs are float32.
        place: which part it is. Inputs of a ``middle`` and a ``last`` one, and outputs of a
            ``middle`` and a ``first`` one, become (N, H, W, C) in int8 where they are maps.
    """
    import onnx

    found = onnx.load_from_string(model)
    if place in ("middle", "last"):
        _take_over(found.graph)
    if place in ("middle", "first"):
        _hand_on(found.graph)
    result: bytes = found.SerializeToString()
    return result


def _take_over(graph: Any) -> None:
    """Inputs are int8 maps: the node that quantises each goes."""
    from onnx import helper

    before = []
    for entry in graph.input:
        users = [node for node in graph.node if entry.name in node.input]
        if [node.op_type for node in users] == ["QuantizeLinear"] and _is_map(entry):
            (quantised,) = users[0].output
            before.append(
                helper.make_node("Transpose", [entry.name], [quantised], perm=[0, 3, 1, 2])
            )
            _make_int8(entry, graph, users[0])
            graph.node.remove(users[0])
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _hand_on(graph: Any) -> None:
    """Outputs are int8 maps: the node that dequantises each goes."""
    from onnx import helper

    for entry in graph.output:
        (maker,) = (node for node in graph.node if entry.name in node.output)
        if maker.op_type == "DequantizeLinear" and _is_map(entry):
            quantised = maker.input[0]
            _make_int8(entry, graph, maker)
            graph.node.remove(maker)
            graph.node.append(
                helper.make_node("Transpose", [quantised], [entry.name], perm=[0, 2, 3, 1])
            )


def _is_map(entry: Any) -> bool:
    return len(entry.type.tensor_type.shape.dim) == 4


def _make_int8(entry: Any, graph: Any, node: Any) -> None:
    """Gives an input or output the type of a node's zero point, and channels last."""
    from onnx import helper

    (zero_point,) = (tensor for tensor in graph.initializer if tensor.name == node.input[2])
    batch, channels, *sides = (side.dim_value for side in entry.type.tensor_type.shape.dim)
    shape = [batch, *sides, channels]
    entry.CopyFrom(helper.make_tensor_value_info(entry.name, zero_point.data_type, shape))
