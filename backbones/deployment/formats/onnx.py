"""ONNX, by PyTorch's own exporter."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from backbones.deployment.formats.torch_export import any_length, dynamic_sides
from backbones.extras import require

OPSET = 18
"""Of every file: the exporter's own, so that nothing is converted afterwards."""


def to_onnx(
    module: nn.Module,
    inputs: Sequence[Tensor],
    *,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    dynamic: Sequence[Mapping[int, str]] = (),
    divisor: int = 1,
) -> bytes:
    """Converts a module in eval mode.

    Args:
        module: takes ``inputs`` as positional arguments; returns a tensor or a list of them.
        inputs: examples.
        input_names: of the file's inputs; the exporter's by default.
        output_names: of the file's outputs; likewise.
        dynamic: see :func:`backbones.deployment.formats.torch_export.dynamic_sides`; by default
            every side is as in the example.
        divisor: likewise.

    Returns:
        The serialised model, weights included.
    """
    require("onnx", "onnxscript", extra="onnxruntime")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with any_length():
        program = torch.onnx.export(
            module,
            tuple(inputs),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(input_names) or None,
            output_names=list(output_names) or None,
            dynamic_shapes=dynamic_sides(dynamic, divisor),
        )
    assert program is not None
    model: bytes = program.model_proto.SerializeToString()
    return model
