"""Inputs to time a network with in int8: what its ranges are found by, and quantised maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CALIBRATION = 2
"""Random examples that ranges are found by: enough to time a network, whose values do not count."""

_STEPS = 32.0
"""Quantised steps for each unit of a normalised map: four deviations fill the range of int8."""


def calibration(inputs: Sequence[Tensor]) -> list[list[NDArray[np.float32]]]:
    """Random examples in the shapes of ``inputs``, with the range of normalised maps.

    They are the same every time, and no other random number depends on them.
    """
    generator = torch.Generator().manual_seed(0)
    return [
        [torch.randn(tensor.shape, generator=generator).numpy() for tensor in inputs]
        for _ in range(CALIBRATION)
    ]


def quantised_maps(maps: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """(N, C, H, W) in float32 → (N, H, W, C) in int8 or uint8, over most of its range."""
    bounds = np.iinfo(dtype)
    steps = np.round(maps.transpose(0, 2, 3, 1) * _STEPS) + (bounds.min + bounds.max + 1) // 2
    return np.ascontiguousarray(np.clip(steps, bounds.min, bounds.max), dtype=dtype)
