"""LiteRT (TensorFlow Lite's successor), by litert-torch, channels last."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbones.deployment.formats.outputs import flatten
from backbones.extras import require
from backbones.quiet import quiet


def to_litert(module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """Converts a module in eval mode, for inputs of exactly these shapes.

    Args:
        module: takes ``inputs`` as positional arguments; returns a tensor or a list of them.
        inputs: examples.

    Returns:
        A ``.tflite`` flatbuffer. Inputs (N, C, H, W) and outputs of four sides are (N, H, W, C) in
        it; the others are as in the module.
    """
    require("litert_torch", extra="litert-converter")
    with quiet(reveal=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litert_torch

        with torch.no_grad():
            outputs = flatten(module(*inputs))
        wrapped = litert_torch.to_channel_last_io(
            _contiguous(module),
            args=[index for index, tensor in enumerate(inputs) if tensor.dim() == 4],
            outputs=[index for index, tensor in enumerate(outputs) if tensor.dim() == 4],
        )
        wrapped.training = False  # of the wrapper; the module may refuse to be told
        examples = tuple(
            tensor.permute(0, 2, 3, 1).contiguous() if tensor.dim() == 4 else tensor
            for tensor in inputs
        )
        model: bytes = litert_torch.convert(wrapped, examples).model_content()
    return model


def _contiguous(module: nn.Module) -> nn.Module:
    """A copy whose tensors are contiguous.

    litert-torch knows a constant by its address. Of a tensor in channels-last order it makes a
    contiguous copy, whose address is free again when the next one comes: a layer would get the
    weights of an earlier one of its shape.
    """
    copied = copy.deepcopy(module)
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data = tensor.data.contiguous()
    return copied
