"""Weights that show every mistake."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def randomize() -> Callable[[nn.Module], None]:
    """Draws all weights and batch-norm statistics, so that none can hide behind its default.

    Biases reach from -4 to 8, so that activations meet all their pieces: ReLU6 its 6, hard-swish
    its -3 and 3.
    """

    def function(model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(0)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator)
                if "var" in name or (value.dim() == 1 and name.endswith("weight")):
                    value.copy_(noise + 0.5)
                elif name.endswith("bias"):
                    value.copy_(12 * noise - 4)
                else:
                    value.copy_(noise - 0.5)
                if value.dim() == 4:
                    value.mul_(2 / (value[0].numel() ** 0.5))

    return function
