"""Pickles are data: arrays and containers come back as they were, anything else is refused."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode

from backbones.errors import UserError
from detection.engine.plain_pickle import read_pickle

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2],
    np.arange(3, dtype=">f4"),
    np.array([True, False]),
    np.array(2.5, dtype=np.float16),
    np.array([1 + 2j]),
    np.zeros((0, 4), np.uint8),
]
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

PYTHON_2 = (
    b"\x80\x02}U\x04bloncnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87"
    b"R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\xc0\x7f\x00\x00\x80\xbftbs."
)
"""``{"blon": np.array([nan, -1], "f4")}`` as Python 2 and NumPy 1 write it: bytes as text."""


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def write(path: Path, value: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("numpy_name", [b"numpy._core", b"numpy.core"])
def test_arrays_come_back(tmp_path: Path, protocol: int, numpy_name: bytes) -> None:
    scalars = {"a": np.float64(0.1), "b": np.int32(-7), "c": np.bool_(True)}
    value = {"arrays": ARRAYS, "ordered": OrderedDict(scalars), "plain": (1, "é", None, b"x")}
    content = pickle.dumps(value, protocol)
    if protocol < 4:  # names have no length before them
        content = content.replace(b"numpy._core", numpy_name)
    file = tmp_path / "file.pkl"
    file.write_bytes(content)
    found = read_pickle(file, "file")
    for array, wanted in zip(found["arrays"], ARRAYS, strict=True):
        assert np.array_equal(array, wanted)
        assert (array.shape, array.dtype) == (wanted.shape, wanted.dtype.newbyteorder("="))
        torch.from_numpy(array).fill_(1)
    assert found["ordered"] == scalars
    assert [type(item) for item in found["ordered"].values()] == [np.float64, np.int32, np.bool_]
    assert found["plain"] == value["plain"]


def test_a_file_of_python_2(tmp_path: Path) -> None:
    file = tmp_path / "file.pkl"
    file.write_bytes(PYTHON_2)
    (array,) = read_pickle(file, "file").values()
    assert np.isnan(array[0])
    assert (array[1], array.dtype) == (-1, np.float32)


def test_a_shared_container_stays_one(tmp_path: Path) -> None:
    value: list[Any] = [np.ones(1)]
    for _ in range(50):
        value = [value, value]
    found = read_pickle(write(tmp_path / "file.pkl", value), "file")
    assert found[0] is found[1]


def test_a_box_mode(tmp_path: Path) -> None:
    file = write(tmp_path / "file.pkl", {"bbox_mode": BoxMode.XYWH_ABS})
    assert read_pickle(file, "file")["bbox_mode"] is BoxMode.XYWH_ABS


def calls(function: str, argument: bytes) -> bytes:
    """A pickle that calls ``module name``."""
    return b"c%b\n(%btR." % (function.replace(" ", "\n").encode(), argument)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_code_is_refused_by_name(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"
    file = write(tmp_path / "zoo.pkl", {"model": {"a": _Runs(marker)}}, protocol)
    with pytest.raises(UserError) as caught:
        read_pickle(file, "checkpoint")
    message = str(caught.value)
    assert f"the checkpoint '{file}' is a pickle that holds 'posix.system'" in message
    assert "torch.save" in message
    assert "\n" not in message
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (calls("builtins eval", b"V1\n"), "'builtins.eval'"),
        (calls("builtins getattr", b"V1\n"), "'builtins.getattr'"),
        (calls("__builtin__ eval", b"V1\n"), "'__builtin__.eval'"),
        (calls("numpy load", b"V1\n"), "'numpy.load'"),
        (calls("numpy.core.multiarray _reconstruct.__globals__", b""), "'numpy.core.multiarray._"),
        (calls("torch._utils _rebuild_tensor_v2", b""), "'torch._utils._rebuild_tensor_v2'"),
        (calls("_codecs encode", b"Va\nVrot13\n"), "the encoding 'rot13'"),
        (pickle.dumps(np.array([{}])), "an array of 'O8'"),
        (pickle.dumps(np.array(["a"])), "an array of 'U1'"),
        (pickle.dumps(np.zeros(1, [("a", "f4")])), "an array of 'V4'"),
        (b"cnumpy\nndarray\n.", "a type or a function"),
        (b"c_codecs\nencode\n.", "a type or a function"),
        (calls("numpy dtype", b"Vf4\n"), "a type or a function"),
        (calls("numpy.core.multiarray _reconstruct", b""), "cannot read .*has no content"),
        (calls("numpy ndarray", b"I9\n"), "cannot read"),
        (
            pickle.dumps(np.ones(3, "f4"), 2).replace(b"K\x03\x85", b"K\x09\x85"),
            "cannot read .*12 b",
        ),
        (b"\x80\x04abc", "cannot read .*truncated"),
        (b"", "cannot read .*truncated"),
        (pickle.dumps(np.ones(3))[:-9], "cannot read .*truncated"),
        (b"(lp0\n" + b"(l" * 100_000, "cannot read"),
        (b"]\x94h\x00a.", "cannot read .*Recursion"),
    ],
)
def test_what_is_no_plain_data(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "file.pkl"
    file.write_bytes(content)
    with pytest.raises(UserError, match=expected) as caught:
        read_pickle(file, "file")
    assert str(file) in str(caught.value)


def test_numpys_own_states_are_not_trusted(tmp_path: Path) -> None:
    """A dtype may claim to hold no objects: NumPy would take the bytes for addresses."""
    content = pickle.dumps(np.array([None]), 2)
    for kind in (b"f8", b"O8"):
        flags = content.replace(b"O8", kind).replace(b"K?tb", b"K\x00tb")
        file = tmp_path / "file.pkl"
        file.write_bytes(flags)
        with pytest.raises(UserError, match="an array of "):
            read_pickle(file, "file")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the proposal file .*absent.pkl"):
        read_pickle(tmp_path / "absent.pkl", "proposal file")
