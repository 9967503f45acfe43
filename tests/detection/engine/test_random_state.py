from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from detection.engine.random_state import capture_random_state, restore_random_state


def _draw() -> list[float]:
    # Gaussians too: NumPy and Python keep the second of a pair.
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.rand(())),
        float(torch.randn(())),
    ]


def test_streams_continue_from_a_safe_file(tmp_path: Path) -> None:
    _draw()
    torch.save(capture_random_state(), tmp_path / "state.pth")
    expected = [_draw() for _ in range(3)]
    restore_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert [_draw() for _ in range(3)] == expected
