"""Threads that wait let others have the core, unless the user chose otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from backbones.threads import SPINS


def openmp_spins(chosen: dict[str, str]) -> str:
    """What GNU's OpenMP says of itself when ``import detection`` loads PyTorch."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", "import detection"],
        env={**kept, "OMP_DISPLAY_ENV": "verbose", **chosen},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)
    if found is None:
        pytest.skip("PyTorch is not built with GNU's OpenMP")
    return found[1]


def test_threads_sleep_soon() -> None:
    assert openmp_spins({}) == str(SPINS)


@pytest.mark.slow
def test_the_environment_decides() -> None:
    assert openmp_spins({"GOMP_SPINCOUNT": "77"}) == "77"
    assert openmp_spins({"OMP_WAIT_POLICY": "PASSIVE"}) == "0"
