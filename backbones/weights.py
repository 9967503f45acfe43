"""Checkpoints: reading them safely, and fitting them to a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import UserError
from backbones.files import atomic_path

StateDict = dict[str, Tensor]


def save_checkpoint(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes tensors (and plain numbers, strings and containers), whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save(dict(content), temporary)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a checkpoint without running any code in it.

    Raises:
        UserError: if the file is missing, truncated, or holds more than tensors and plain data.
    """
    if not Path(path).is_file():
        raise UserError(f"no checkpoint at '{path}'; check the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a broken file
        # The first sentence; what follows is advice for programmers.
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0][:200]
        raise UserError(
            f"cannot read the checkpoint '{path}' ({reason}); it is truncated or not a PyTorch "
            "checkpoint of tensors: copy or train it again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(
            f"the checkpoint '{path}' holds a {type(content).__name__}; expected a state dict"
        )
    return content


def model_state(content: Mapping[str, Any], where: str) -> StateDict:
    """The model's tensors of a checkpoint: under ``model`` or ``state_dict``, or at top level."""
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"the checkpoint '{where}' holds no model weights (tensors by name)")
    return tensors


def load_weights(
    model: nn.Module, state: Mapping[str, Tensor], where: str, ignore: tuple[str, ...] = ()
) -> None:
    """Loads ``state`` into ``model``, tensor by tensor, and insists that everything fits.

    Args:
        model: a network of this package.
        state: tensors by name.
        where: the file, for the error message.
        ignore: prefixes that may be missing, left over or of another shape (``classifier.``).

    Raises:
        UserError: naming the first tensors that are missing, left over or of another shape, i.e.
            when the checkpoint belongs to another architecture or class count.
    """
    expected = model.state_dict()
    fitting = {
        name: value
        for name, value in state.items()
        if name in expected and value.shape == expected[name].shape
    }
    problems = [
        f"{name} ({_shape(state, name)} in the file, {_shape(expected, name)} in the network)"
        for name in (*expected, *(name for name in state if name not in expected))
        if name not in fitting
        and not name.startswith(ignore or ("\0",))
        and not name.endswith("num_batches_tracked")
    ]
    if problems:
        only_classifier = all(problem.startswith("classifier.") for problem in problems)
        reason = "another number of classes" if only_classifier else "another architecture"
        raise UserError(
            f"the checkpoint '{where}' belongs to {reason}: {len(problems)} tensors do not fit, "
            f"first {'; '.join(problems[:3])}"
        )
    model.load_state_dict(fitting, strict=False)


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return "×".join(map(str, state[name].shape)) or "scalar" if name in state else "absent"
