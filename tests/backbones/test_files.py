"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from backbones import UserError
from backbones.files import atomic_path, write_json


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "value.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    with contextlib.suppress(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["value.json"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "value.json", tmp_path):
        with pytest.raises(UserError, match=f"cannot write '{place}': .*name a file in a folder"):
            write_json(place, {})
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
