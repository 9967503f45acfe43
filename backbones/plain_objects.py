"""Harmless objects of training programs in a checkpoint, read without running any of their code.

Beside the weights, trainers save their arguments, counters and figures: an ``argparse.Namespace``,
a path, a number of NumPy's. PyTorch's reader of plain data refuses a file for one of them. Here it
is told what their names mean: stand-ins of this module's own, which keep what is plain and run
nothing. What is not listed stays refused.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch

_TYPES = {
    "b1": torch.bool,
    "u1": torch.uint8,
    **{f"i{size}": getattr(torch, f"int{8 * size}") for size in (1, 2, 4, 8)},
    **{f"f{size}": getattr(torch, f"float{8 * size}") for size in (2, 4, 8)},
}


class _Inert:
    """Stands for an object of no interest here."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Mapping:
    """Stands for a kind of dictionary. PyTorch's reader fills none but its own kinds."""

    def __new__(cls, *args: Any) -> Any:
        return OrderedDict(args[0]) if args and isinstance(args[0], Mapping) else OrderedDict()


class _List:
    """Stands for a kind of list."""

    def __new__(cls, *args: Any) -> Any:
        return list(args[0]) if args and isinstance(args[0], list | tuple) else []


class _Text:
    """Stands for what is written as text: a path by its parts."""

    def __new__(cls, *parts: Any) -> Any:
        return "/".join(map(str, parts)).replace("//", "/")


class _Dtype:
    """Stands for ``numpy.dtype``: a type of numbers."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in _TYPES:
            raise ValueError(f"an array of '{code}'")
        self.dtype, self.swapped = _TYPES[code], False

    def __setstate__(self, state: Any) -> None:
        self.swapped = state[1] == ">"


class _Array:
    """Stands for ``numpy.ndarray``, and after reading holds a tensor."""

    value: torch.Tensor | None = None

    def __new__(cls, *_: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, columns_first, data = state
        tensor = _tensor(kind, data)
        if tensor.numel() != math.prod(shape):
            raise ValueError(f"an array of shape {tuple(shape)} has {tensor.numel()} numbers")
        if columns_first:
            turned = tensor.reshape(tuple(reversed(shape)))
            self.value = turned.permute(*reversed(range(len(shape)))).contiguous()
        else:
            self.value = tensor.reshape(tuple(shape))


class _Scalar:
    """Stands for the making of a NumPy number, and makes Python's."""

    def __new__(cls, kind: _Dtype, data: Any) -> Any:
        return _tensor(kind, data)[0].item()


class _NoBytes:
    """Stands for ``bytes``, of an empty array."""

    def __new__(cls, *_: Any) -> Any:
        return b""


def _tensor(kind: Any, data: Any) -> torch.Tensor:
    if not (isinstance(kind, _Dtype) and isinstance(data, bytes | str)):
        raise ValueError("an array of objects")
    content = bytearray(data.encode("latin1") if isinstance(data, str) else data)
    if kind.swapped:
        size = kind.dtype.itemsize
        content = bytearray(content[at ^ (size - 1)] for at in range(len(content)))
    return torch.frombuffer(content, dtype=kind.dtype) if content else torch.empty(0)


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_LIGHTNINGS = ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")
_CONFIG_NODES = ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "BytesNode",
                 "PathNode", "EnumNode", "InterpolationResultNode")  # fmt: skip

OBJECTS: dict[type, tuple[str, ...]] = {
    _Inert: (
        "argparse.Namespace",
        "types.SimpleNamespace",
        *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
        *(f"builtins.{name}" for name in ("dict", "list", "tuple", "int", "float", "str", "bool")),
        *(f"builtins.{name}" for name in ("object", "slice", "range", "frozenset", "type")),
        "typing.Any",
        "uuid.UUID",
        "fractions.Fraction",
        "decimal.Decimal",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        *(f"omegaconf.nodes.{name}" for name in _CONFIG_NODES),
        "torch.torch_version.TorchVersion",
        *(
            f"{package}.callbacks.{module}"
            for package in ("pytorch_lightning", "lightning.pytorch")
            for module in (
                "model_checkpoint.ModelCheckpoint",
                "early_stopping.EarlyStopping",
                "lr_monitor.LearningRateMonitor",
            )
        ),
        "mmengine.logging.history_buffer.HistoryBuffer",
    ),
    _Mapping: (
        "collections.defaultdict",
        *(f"{package}.utilities.parsing.AttributeDict" for package in _LIGHTNINGS),
        *(f"{package}.utilities.data.AttributeDict" for package in _LIGHTNINGS),
        "yacs.config.CfgNode",
        "fvcore.common.config.CfgNode",
        "detectron2.config.config.CfgNode",
        "mmengine.config.config.ConfigDict",
        "mmcv.utils.config.ConfigDict",
        "addict.addict.Dict",
        "easydict.EasyDict",
        "munch.Munch",
    ),
    _List: ("collections.deque",),
    _Text: tuple(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    _Array: (
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
    ),
    _Dtype: ("numpy.dtype",),
    _Scalar: ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    _NoBytes: ("builtins.bytes",),
}
"""The names that are known beside PyTorch's own, by what stands for them."""


def _stand_in(kind: type, name: str) -> type:
    module, _, last = name.rpartition(".")
    return type(last, (kind,), {"__module__": module, "__qualname__": last})


_STAND_INS: list[Any] = [_stand_in(kind, name) for kind, names in OBJECTS.items() for name in names]


@contextlib.contextmanager
def harmless_objects() -> Iterator[None]:
    """Makes ``torch.load(weights_only=True)`` read the names of :data:`OBJECTS` as stand-ins."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(_STAND_INS)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def without_stand_ins(value: Any) -> Any:
    """Containers as they are, with the tensors that arrays hold in place of their stand-ins.

    Mappings are changed in place, so that their kind and attributes stay.
    """
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = without_stand_ins(item)
    elif isinstance(value, list):
        value[:] = map(without_stand_ins, value)
    elif type(value) is tuple:
        return tuple(map(without_stand_ins, value))
    return value


def refused_object(error: Exception) -> str | None:
    """The name that PyTorch's reader refused; None if it failed for another reason."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found.group(1) if found else None
