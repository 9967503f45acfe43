"""Pickles as data: arrays of numbers and plain containers, and nothing that could run.

Detectron2's model zoo and its files of proposals are pickles, and a pickle may name any function
to be called with any arguments. Here only names that are listed mean anything, and they mean
stand-ins written in Python: not even NumPy's own readers of a pickled state are called.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from backbones.errors import UserError


def read_pickle(path: str | os.PathLike[str], kind: str) -> Any:
    """Reads a pickle of plain data, text of Python 2 being Latin-1.

    Args:
        path: the file; an address that iopath's ``PathManager`` can fetch counts as well.
        kind: what the file should be, for the error message ("checkpoint").

    Returns:
        Numbers, text, containers, and NumPy arrays of numbers.

    Raises:
        UserError: if the file holds more than that, naming what, or is no pickle.
    """
    try:
        with PathManager.open(os.fspath(path), "rb") as file:
            return _unwrapped(_Unpickler(file, encoding="latin1").load(), {})
    except _RefusedError as error:
        raise UserError(
            f"the {kind} '{path}' is a pickle that holds {error}; this reads arrays of numbers and "
            "plain containers alone, so that no file can run code: save it as a state dict, with "
            "torch.save in a .pth file"
        ) from None
    except Exception as error:  # unpickling a broken file raises almost anything
        raise UserError(
            f"cannot read the {kind} '{path}' ({type(error).__name__}: {error}); it is truncated "
            "or of another kind: copy or download it again"
        ) from None


class _RefusedError(Exception):
    """Something in a pickle that is no plain data."""


class _Type:
    """Stands for ``numpy.dtype``: a type of numbers."""

    def __init__(self, code: str, *_: Any) -> None:
        if not (isinstance(code, str) and re.fullmatch(r"[biufc]\d{1,2}", code)):
            raise _RefusedError(f"an array of '{code}'")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray``, and after unpickling holds one."""

    value: np.ndarray | np.generic | None = None

    def __setstate__(self, state: Sequence[Any]) -> None:
        *_, shape, kind, columns_first, data = state
        self.value = _array(data, kind, shape, "F" if columns_first else "C")


def _array(data: Any, kind: _Type, shape: Sequence[int], order: str) -> np.ndarray:
    if not isinstance(data, bytes | bytearray | str):
        raise _RefusedError("an array of objects")
    content = data.encode("latin1") if isinstance(data, str) else bytes(data)
    if len(content) != math.prod(shape) * kind.dtype.itemsize:
        raise ValueError(f"an array of shape {tuple(shape)} has {len(content)} bytes")
    flat = np.frombuffer(bytearray(content), kind.dtype.newbyteorder("="))
    flat = flat.byteswap() if not kind.dtype.isnative else flat
    return flat.reshape(tuple(shape), order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, kind: _Type, shape: Sequence[int], order: str) -> _Array:
    found = _Array()
    found.value = _array(data, kind, shape, order)
    return found


def _scalar(kind: _Type, data: Any) -> _Array:
    found = _Array()
    found.value = _array(data, kind, (1,), "C")[0]
    return found


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"text in the encoding '{encoding}'")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _box_mode(value: int) -> BoxMode:
    return BoxMode(value)


_KNOWN: dict[str, Any] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Type,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
    "builtins.bytes": _no_bytes,  # of an empty array
    "__builtin__.bytes": _no_bytes,
    "detectron2.structures.boxes.BoxMode": _box_mode,
}
"""What a name in a pickle means; NumPy 2 calls ``numpy.core`` ``numpy._core``."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name; any other is refused before it is looked up."""
        known = _KNOWN.get(f"{module.replace('numpy._core', 'numpy.core')}.{name}")
        if known is None:
            raise _RefusedError(f"'{module}.{name}'")
        return known


def _unwrapped(value: Any, done: dict[int, Any]) -> Any:
    """Containers with the arrays that :class:`_Array` holds, in place of it.

    Args:
        value: what was unpickled.
        done: the results for containers that occur more than once, by identity.
    """
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array has no content")
        return value.value
    if isinstance(value, type | _Type) or callable(value):
        raise _RefusedError("a type or a function")
    if id(value) not in done:
        if isinstance(value, Mapping):
            done[id(value)] = {key: _unwrapped(item, done) for key, item in value.items()}
        elif isinstance(value, list | tuple | set | frozenset):
            done[id(value)] = type(value)(_unwrapped(item, done) for item in value)
        else:
            return value
    return done[id(value)]
