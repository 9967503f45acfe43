"""How threads that share an operator wait for each other; importing this costs nothing."""

from __future__ import annotations

import os

__all__ = ["SPINS", "yield_cores"]

SPINS = 1000
"""Turns that a thread waits awake. OpenMP's own 300,000 to 30 billion keep a core from the others:
beside a busy process a step takes many times as long. With none at all, waking up costs more than
the second thread gains."""

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def yield_cores() -> None:
    """Has threads of GNU's OpenMP, PyTorch's on Linux, sleep soon; before PyTorch is imported.

    A choice that the environment holds already stands, and children inherit it.
    """
    if not any(name in os.environ for name in _CHOICES):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
