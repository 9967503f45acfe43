"""Which data sets are found, and which are there in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.doctor.data_sets import data_findings, data_folder
from search.doctor.finding import Finding


def look(folder: Path, *own: str) -> dict[str, Finding]:
    environ = {"DETECTRON2_DATASETS": str(folder)}
    return {finding.subject: finding for finding in data_findings(environ, own)}


def make(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_the_folder_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_folder({}) == Path("datasets")
    first, *_ = data_findings({}, ())
    assert first.status == "ok"
    assert first.text.startswith("no 'datasets' ($DETECTRON2_DATASETS is not set)")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    found = look(tmp_path / "nowhere")["data: folder"]
    assert found.status == "note"
    assert found.text == f"no '{tmp_path / 'nowhere'}' ($DETECTRON2_DATASETS)"
    assert found.fix.startswith("export DETECTRON2_DATASETS=FOLDER")


def test_a_file_in_its_place(tmp_path: Path) -> None:
    make(tmp_path, "data")
    assert look(tmp_path / "data")["data: folder"].text.endswith("is no folder")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    found = look(tmp_path)["data: folder"]
    assert found.status == "note"
    assert found.text.endswith("cannot be written, so no digits can be made")


def test_none_is_there(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found["data: folder"].status == "ok"
    for name in ("coco", "imagenet"):
        assert found[f"data: {name}"] == Finding("ok", f"data: {name}", "not there")
    assert found["data: digits"].text == "made at first use, or by spnas prepare-digits"


def test_complete_data_sets(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("digits/manifest.json", "coco/train2017/1.jpg", "coco/val2017/2.jpg"),
        *(f"coco/annotations/instances_{split}2017.json" for split in ("train", "val")),
        *("imagenet/train/n1/1.JPEG", "imagenet/val/n1/1.JPEG"),
    )
    found = look(tmp_path)
    assert found["data: digits"].text == "made"
    for name in ("coco", "imagenet"):
        assert found[f"data: {name}"].status == "ok"
        assert found[f"data: {name}"].text == "complete, by its files and folders"


def test_coco_in_part(tmp_path: Path) -> None:
    make(tmp_path, "coco/train2017/1.jpg", "coco/annotations/instances_val2017.json")
    (tmp_path / "coco" / "val2017").mkdir()
    found = look(tmp_path)["data: coco"]
    assert found.status == "note"
    assert found.text.endswith("nothing in it at annotations/instances_train2017.json, val2017")
    assert found.fix


@pytest.mark.parametrize("place", ["", "train/"])
def test_imagenet_in_tar_files(place: str, tmp_path: Path) -> None:
    make(tmp_path, f"imagenet/{place}train-000.tar")
    found = look(tmp_path)["data: imagenet"]
    assert found.status == "ok"
    assert found.text == f"tar files in {tmp_path / 'imagenet' / place}"


def test_folders_of_ones_own(tmp_path: Path) -> None:
    found = look(tmp_path, "coco", "photos")["data: of your own"]
    assert found.text == f"layouts that are known: DATA.ROOT {tmp_path / 'photos'}"
    assert "data: of your own" not in look(tmp_path, "coco")
