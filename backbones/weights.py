"""Checkpoints: reading them safely, and fitting them to a network."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import UserError, first_of
from backbones.extras import require
from backbones.files import atomic_path, cannot_write
from backbones.plain_objects import harmless_objects, refused_object, without_stand_ins

StateDict = dict[str, Tensor]

CLASSES = "classes"
"""Where a detector's file has the names of its classes, in their order."""


def save_checkpoint(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes tensors (and plain numbers, strings and containers), whole or not at all.

    It is on the disk when this returns: a power cut afterwards leaves it whole.

    Raises:
        UserError: if the disk is full or the folder cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(dict(content), temporary)
        except RuntimeError as error:  # of PyTorch's writer, for whatever the system says
            raise cannot_write(path, error) from error
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a checkpoint without running any code in it: PyTorch's, or a safetensors file.

    Arrays and numbers of NumPy become tensors and numbers; of the harmless objects that training
    programs leave (:data:`backbones.plain_objects.OBJECTS`) nothing but plain content is kept.

    Raises:
        UserError: if the file is missing, truncated, or holds an object of another kind, by name.
    """
    if Path(path).is_dir():
        raise UserError(f"'{path}' is a folder; name the file in it, or local-dir:{path} as timm")
    if not Path(path).is_file():
        raise UserError(f"no checkpoint at '{path}'; check the path")
    try:
        content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    except UserError:
        raise
    except Exception as error:  # torch raises many types for a broken file
        if name := refused_object(error):
            raise UserError(
                f"the checkpoint '{path}' holds an object '{name}', which is not a PyTorch "
                "checkpoint of tensors and plain data, and could run code: where you trust it, "
                "load it in a script of your own and save the tensors alone: "
                "torch.save(model.state_dict(), 'weights.pth')"
            ) from None
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


def _is_safetensors(path: str | os.PathLike[str]) -> bool:
    """By its content: the length of a header (8 bytes), and the header, which is JSON."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tensors; those of a shared detector under ``model``, beside its ``classes``."""
    require("safetensors")
    tensors: StateDict = import_module("safetensors.torch").load_file(path, device="cpu")
    with import_module("safetensors").safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(CLASSES)
    return tensors if text is None else {"model": tensors, CLASSES: json.loads(text)}


def save_safetensors(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], classes: Sequence[str] = ()
) -> None:
    """Writes tensors as a safetensors file, whole or not at all.

    Args:
        path: of the file.
        state: tensors by name.
        classes: names of a detector's classes, in their order; empty if they are not known.
    """
    metadata = {"format": "pt", **({CLASSES: json.dumps(list(classes))} if classes else {})}
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with atomic_path(path) as temporary:
        import_module("safetensors.torch").save_file(plain, temporary, metadata)


def _read_torch(path: str | os.PathLike[str]) -> Any:
    # PyTorch is given a file, not a path: it judges some files by the end of their names
    with open(path, "rb") as file, harmless_objects(), warnings.catch_warnings():
        # of the pickle protocol; what it leads to is an error of its own
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        return without_stand_ins(torch.load(file, map_location="cpu", weights_only=True))


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
            when the checkpoint belongs to another architecture or class count; or that hold NaN,
            infinity, or integers where the network has fractions.
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
    check_types(fitting, expected, where)
    check_finite(fitting, where)
    model.load_state_dict(fitting, strict=False)


def check_types(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Checks that no tensor holds integers, as quantised ones do, where the model has fractions.

    Args:
        state: tensors by name; those that ``expected`` lacks are left out.
        expected: the model's tensors.
        where: the file, for the error message.

    Raises:
        UserError: naming the first such tensors and their types.
    """
    bad = [
        f"{name} ({str(value.dtype).removeprefix('torch.')})"
        for name, value in state.items()
        if name in expected and expected[name].is_floating_point() and not value.is_floating_point()
    ]
    if bad:
        raise UserError(
            f"the checkpoint '{where}' holds {len(bad)} tensors that are not floating point, as "
            f"of a quantised network: {first_of(bad)}; name the weights from before quantisation"
        )


def check_finite(
    state: Mapping[str, Tensor],
    where: str,
    way_out: str = "name an earlier checkpoint, or train it again",
) -> None:
    """Checks that tensors hold neither NaN nor infinity.

    Args:
        state: tensors by name.
        where: the file, for the error message.
        way_out: in that message.

    Raises:
        UserError: naming the first that do, and how many of their numbers.
    """
    bad = [
        f"{name} ({int((~finite).sum())} of {value.numel()})"
        for name, value in state.items()
        if not (finite := value.isfinite()).all()
    ]
    if bad:
        raise UserError(
            f"the checkpoint '{where}' holds NaN or infinity in {len(bad)} tensors: "
            f"{first_of(bad)}; its training diverged, or half precision was not enough: {way_out}"
        )


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return "×".join(map(str, state[name].shape)) or "scalar" if name in state else "absent"
