"""Files that are written whole or not at all, and JSON that is read as plain data."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from backbones import UserError
from backbones.files import atomic_path, read_json, safe_name, write_json

ROOT = Path(__file__).resolve().parents[2]


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


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """And nothing else: not what a living one is writing, of the same file."""
    path = tmp_path / "value.json"
    code = (
        "import os, sys; from backbones.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".value.txt.tmp").touch()
    with atomic_path(path) as outer:
        outer.write_text("outer")
        write_json(path, {})
        assert outer.exists()
        assert sorted(tmp_path.iterdir()) == sorted([outer, tmp_path / ".value.txt.tmp", path])
    assert path.read_text() == "outer"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".value.txt.tmp", "value.json"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "value.json", tmp_path):
        with pytest.raises(UserError, match=f"cannot write '{place}': .*name a file in a folder"):
            write_json(place, {})
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(b"\xef\xbb\xbf" + '{"é": 1}'.encode())
    assert read_json(path, "value") == {"é": 1}
    path.write_text('{"a": 1}', encoding="utf-16")
    with pytest.raises(UserError, match=r"cannot read the value file '.*utf-8"):
        read_json(path, "value")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 100_000, "is nested too deeply; expected at most 100 levels"),
        ("[" * 101 + "]" * 101, "is nested too deeply"),
        ('{"a":' * 101 + "1" + "}" * 101, "is nested too deeply"),
        ("9" * 5000, "not valid JSON .the number 99999999999999999999… has 5000 digits"),
        ("[NaN]", "not valid JSON .NaN is no number"),
        ("-Infinity", "not valid JSON .-Infinity is no number"),
        ("[1,", "not valid JSON .line 1, column 4"),
        ("", "not valid JSON .line 1"),
    ],
)
def test_json_that_would_hang_or_break(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "value.json"
    path.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        read_json(path, "value")
    assert "\n" not in str(caught.value)


def test_what_is_just_within_the_bounds(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text("[" * 99 + str(-(2**63)) + "]" * 99)
    value = read_json(path, "value")
    for _ in range(99):
        (value,) = value
    assert value == -(2**63)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/tmp/x", "a/b", "a\\b", "a\nb", "a\0b", "é" * 101]
)
def test_names_that_lead_out_of_a_folder(name: str) -> None:
    with pytest.raises(UserError, match="a row is called '.*which cannot name a file") as caught:
        safe_name(name, "a row")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["spnas_100", "a b", "..a", "é", "x=1", "-"])
def test_names_that_stay(name: str) -> None:
    assert safe_name(name, "a row") == name
