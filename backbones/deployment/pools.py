"""Global average pools of an ONNX network, which exporters write as means over rows and columns."""

from __future__ import annotations

from typing import Any


def with_global_pools(model: Any) -> Any:
    """The network with ``GlobalAveragePool`` where it has ``ReduceMean`` over rows and columns.

    ONNX Runtime has an int8 kernel for the pool alone: around a mean, every map of a
    squeeze-and-excitation would be dequantised, averaged in float32 and quantised again.

    Args:
        model: an ``onnx.ModelProto``, opset 18 or later; it is left as it is.

    Returns:
        A copy.
    """
    import onnx
    from onnx import helper

    found = onnx.ModelProto()
    found.CopyFrom(model)
    constants = _constants(found)
    nodes = []
    for node in found.graph.node:
        axes = constants.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type != "ReduceMean" or axes not in ([2, 3], [-2, -1], [3, 2], [-1, -2]):
            nodes.append(node)
            continue
        (output,) = node.output
        keeps = {item.name: item.i for item in node.attribute}.get("keepdims", 1)
        pooled = output if keeps else f"{output}_pooled"
        nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], node.name))
        if not keeps:
            nodes.append(helper.make_node("Flatten", [pooled], [output], f"{node.name}_flat"))
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    return found


def _constants(model: Any) -> dict[str, list[int]]:
    """Small tensors of integers that the graph holds, by name."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    return {
        name: numpy_helper.to_array(tensor).tolist()
        for name, tensor in tensors.items()
        if len(tensor.dims) == 1 and tensor.dims[0] <= 4 and tensor.data_type == 7  # INT64
    }
