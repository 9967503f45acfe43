"""The random states of a process: saved as plain data, and set aside for a while."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from numpy.random.mtrand import get_bit_generator, set_bit_generator


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


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What is drawn in the block depends on the seed alone; what follows goes on as without it.

    Calibration and evaluation draw augmentation, dropout and the seeds of loader workers. In such
    a block they draw the same whether a run came there without a break, resumed, or to evaluate.

    Args:
        seed: ``cfg.SEED``; every rank draws numbers of its own. Below 0 counts as 0.
    """
    before = capture_random_state()
    own = max(seed, 0) + comm.get_rank()
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)  # of every device
    try:
        yield
    finally:
        restore_random_state(before)


_spare: list[np.random.BitGenerator] = []
"""Of NumPy, for :func:`drawn_by`: making one takes longer than reading a small image."""


@contextlib.contextmanager
def drawn_by(key: str) -> Iterator[None]:
    """What is drawn on the CPU in the block depends on a key alone; what follows goes on.

    Quick enough for every image: NumPy's generator is exchanged, since copying its state takes
    0.7 ms. The second normal number of a pair that its legacy functions keep is dropped by that.

    Args:
        key: the same gives the same numbers, in any process.
    """
    before = random.getstate(), get_bit_generator(), torch.get_rng_state()
    generator = _spare.pop() if _spare else np.random.MT19937()
    own = seed_of_key(key)
    random.seed(own)
    set_bit_generator(generator)
    np.random.seed(own)
    torch.default_generator.manual_seed(own)
    try:
        yield
    finally:
        random.setstate(before[0])
        set_bit_generator(before[1])
        torch.set_rng_state(before[2])
        _spare.append(generator)


def seed_of_key(key: str) -> int:
    """A number below 2³² for a text, in any process the same."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
