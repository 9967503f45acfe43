"""The made-up data have the layout, the format and the size of the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from search.studies.benchmarks.gpu.made_up_data import OBJECTS, write_coco, write_imagenet


def test_imagenet(tmp_path: Path) -> None:
    write_imagenet(tmp_path, classes=5, per_class=3, drawn=4, scale=1.0)
    root = tmp_path / "imagenet"
    assert len(list(root.glob("train/n????????/*.JPEG"))) == 15
    assert len(list(root.glob("val/n????????/*.JPEG"))) == 5
    files = {path.stat().st_ino for path in root.glob("train/*/*.JPEG")}
    assert len(files) == 4
    with Image.open(next(root.glob("train/*/*.JPEG"))) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (500, 375))
    # the real ones have 110 kB on average
    assert 6e4 < next(root.glob("train/*/*.JPEG")).stat().st_size < 2e5


def test_coco(tmp_path: Path) -> None:
    write_coco(tmp_path, images=6, drawn=2, scale=0.25)
    root = tmp_path / "coco"
    coco = COCO(root / "annotations/instances_train2017.json")
    assert len(coco.getImgIds()) == 6
    assert len(coco.getCatIds()) == 80
    assert max(coco.getCatIds()) == 90
    for record in coco.loadImgs(coco.getImgIds()):
        with Image.open(root / "train2017" / record["file_name"]) as image:
            assert image.size == (record["width"], record["height"]) == (160, 120)
        found = coco.loadAnns(coco.getAnnIds([record["id"]]))
        assert len(found) == OBJECTS
        for item in found:
            assert coco.annToMask(item).sum() == pytest.approx(item["area"], rel=0.25, abs=12)
            x, y, width, height = item["bbox"]
            assert x >= 0 and x + width <= 160 and y >= 0 and y + height <= 120
    assert (root / "annotations/instances_val2017.json").exists()
