"""The random states of a process as plain data, so that they survive a safe checkpoint."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def capture_random_state() -> dict[str, Any]:
    """States of Python's, NumPy's and PyTorch's global generators.

    Returns:
        Tensors and plain numbers only, so that ``torch.load(weights_only=True)`` reads it. The
        CUDA state is that of the current device, if CUDA is in use.
    """
    version, python_words, python_gauss = random.getstate()
    _, numpy_words, position, has_gauss, numpy_gauss = np.random.get_state(legacy=True)
    return {
        "python": {
            "version": version,
            "words": torch.tensor(python_words, dtype=torch.int64),
            "gauss": python_gauss,
        },
        "numpy": {
            "words": torch.from_numpy(np.asarray(numpy_words, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(numpy_gauss),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts back what :func:`capture_random_state` returned; CUDA only where it is available."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    words = numpy["words"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, numpy["position"], numpy["has_gauss"], numpy["gauss"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
