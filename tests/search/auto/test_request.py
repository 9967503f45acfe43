"""What is asked for, and what of it is wrong by itself."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from backbones import UserError
from search.auto import request as module
from search.auto.request import Request, check_output

ROOT = Path(__file__).resolve().parents[3]
PHOTOS: dict[str, Any] = {"data": "photos", "targets": (15.0,), "engine": "torch"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": ""}, "--data is missing"),
        ({"targets": ()}, "--target is missing"),
        ({"detector": "yolo"}, "--detector is 'yolo'; expected one of mask_rcnn, faster_rcnn, ret"),
        ({"formats": ("tflite",)}, "--formats is 'tflite'; expected one of onnx, litert, torch"),
        ({"device": "pi"}, "--device is 'pi'; expected cpu or cuda.*--table"),
        ({"engine": "tvm"}, "unknown engine 'tvm'; expected one of"),
        ({"size": 200}, "--size is 200; expected a multiple of 32"),
        ({"options": ("SEED",)}, "'SEED' at the end of the command line has no value"),
        ({"options": ("OUTPUT_DIR", "x")}, "OUTPUT_DIR is of a stage's own; say it by --output"),
        ({"options": ("SOLVER.EPOCHS", "2"), "budget": 60.0}, "SOLVER.EPOCHS and --budget both"),
        ({"options": ("SOLVER.EPOCHS", "-1")}, "SOLVER.EPOCHS is '-1'; expected a number"),
    ],
)
def test_what_is_wrong_by_itself(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Request(**{**PHOTOS, **changed}).check()


def test_keys_go_where_they_belong() -> None:
    pairs = {
        "SEED": "3",
        "SEARCH.AROUND.KERNEL_SIZES": "[3]",
        "SEARCH.SENSITIVITY.IMAGES": "10",
        "SOLVER.EPOCHS": "2",
    }
    asked = Request(**PHOTOS, options=tuple(word for pair in pairs.items() for word in pair))
    assert asked.detector_options == ("SEED", "3")
    assert asked.space_options == ("SEARCH.AROUND.KERNEL_SIZES", "[3]")
    assert asked.search_options == ("SEARCH.SENSITIVITY.IMAGES", "10")
    assert asked.epochs == 2.0


def test_a_request_reads_itself_and_says_what_differs() -> None:
    asked = Request(**PHOTOS, options=("SEED", "3"))
    assert Request.from_json(asked.to_json()) == asked
    other = Request(**{**PHOTOS, "targets": (10.0, 15.0), "budget": 5400.0})
    assert asked.differing(asked) == []
    assert asked.differing(other) == [
        "--target was 15, not 10 15",
        "--budget was none, not 1h30m",
        "KEY VALUE was SEED 3, not none",
    ]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"file' is a file; name another folder: --output"):
            check_output(folder)


def test_a_folder_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another user than root finds it; the first folder above that is there counts."""
    asked: list[Path] = []

    def access(path: Path, mode: int) -> bool:
        asked.append(path)
        return False

    monkeypatch.setattr(module.os, "access", access)
    with pytest.raises(UserError, match="you may not write to"):
        check_output(tmp_path / "new" / "auto")
    assert asked == [tmp_path]
    assert not (tmp_path / "new").exists()


def test_data_are_a_folder_or_two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = runpy.run_path(str(ROOT / "tools" / "auto.py"))["parse"]

    def typed(*data: str) -> Request:
        words = ["auto.py", "--data", *data, "--target", "15ms", "--engine", "torch"]
        monkeypatch.setattr("sys.argv", words)
        return Request.of(parse())

    assert (typed("photos").data, typed("photos").data_val) == ("photos", "")
    both = typed("a.json:a", "b.json:b")
    assert (both.data, both.data_val) == ("a.json:a", "b.json:b")
    assert "--data a.json:a b.json:b --targets" in " ".join(both.words(Path("output")))
    with pytest.raises(UserError, match="--data is 'a b c'; expected a folder, or a training and"):
        typed("a", "b", "c")
