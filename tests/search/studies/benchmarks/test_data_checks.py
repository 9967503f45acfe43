"""The made-up data set is one, and its figures become a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from backbones import UserError
from search.studies.benchmarks.data_checks import (
    _measured,
    data_report,
    data_section,
    write_made_up_set,
)


def test_made_up_set(tmp_path: Path) -> None:
    path = write_made_up_set(tmp_path, 1100, 2500)
    data = json.loads(path.read_text())
    assert [len(data[key]) for key in ("images", "annotations", "categories")] == [1100, 2500, 80]
    files = [tmp_path / image["file_name"] for image in data["images"]]
    assert len(set(files)) == 1100 and all(file.is_file() for file in files)
    assert Image.open(files[-1]).size == (64, 64)


def test_figures(tmp_path: Path) -> None:
    found = _measured(str(write_made_up_set(tmp_path, 20, 300)))
    assert set(found["seconds"]) == {"read", "check", "inspect"}
    report = {"images": 20, "annotations": 300, "json_bytes": 2**20, **found}
    text = data_section({**report, "command": "python x.py", "hardware": "a machine"})
    assert "| 20 images, 300 annotations (1 MiB)" in text
    assert "Peak memory: " in text
    with pytest.raises(UserError, match="--images is 0 and --annotations 5; expected 1 or more"):
        data_report(0, 5)
