from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from detection.engine.random_state import (
    capture_random_state,
    drawn_by,
    restore_random_state,
    seed_of_key,
)


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


def _uniform() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_a_key_decides_what_is_drawn_and_the_streams_go_on() -> None:
    state = capture_random_state()
    expected = [_uniform() for _ in range(3)]
    restore_random_state(state)
    found = [_uniform()]
    with drawn_by("one"):
        one = _draw()
        with drawn_by("other"):
            other = _draw()
        rest = _uniform()
    found.append(_uniform())
    with drawn_by("one"):
        assert _draw() == one != other
        assert _uniform() == rest
    assert [*found, _uniform()] == expected


def test_the_numbers_of_a_key_are_those_of_its_seed() -> None:
    seed = seed_of_key("one")
    with drawn_by("one"):
        found = _draw()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    assert found == _draw()
