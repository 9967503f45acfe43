"""Classifiers on data sets with images that cannot be read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from backbones import UserError
from detection.engine.metrics import read_metrics
from detection.engine.unreadable import UNREADABLE_FILE
from search.classification.classifier import ClassifierTrainer
from search.classification.data import build_dataset, build_val_loader
from tests.made_images import spoil_pixels
from tests.search.conftest import make_cfg


@pytest.fixture
def broken(images: Path, tmp_path: Path) -> Path:
    """One training image that is cut, and one whose pixels are spoilt; one to evaluate on."""
    root = tmp_path / "broken"
    shutil.copytree(images, root)
    cut = root / "train" / "blue" / "3.png"
    cut.write_bytes(cut.read_bytes()[:-60])
    spoil_pixels(root / "train" / "red" / "7.png")
    spoil_pixels(root / "val" / "red" / "0.png")
    return root


def config(root: Path, output: Path, limit: int) -> CfgNode:
    return make_cfg(
        *("classification/digits.yaml", root, output),
        *("DATALOADER.NUM_WORKERS", "1", "SOLVER.WARMUP_EPOCHS", "0.0"),
        *("DATALOADER.MAX_UNREADABLE_IMAGES", str(limit)),
    )


def test_a_training_leaves_them_out(
    broken: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="detection.engine.unreadable"):
        ClassifierTrainer(config(broken, tmp_path / "run", 3)).train()
    said = [line for line in caplog.messages if line.startswith("left out, as number")]
    assert len(said) == 3
    assert "number 3 of DATALOADER.MAX_UNREADABLE_IMAGES: cannot read the image" in said[2]
    listed = (tmp_path / "run" / UNREADABLE_FILE).read_text().splitlines()
    names = sorted(str(Path(json.loads(line)["image"]).relative_to(broken)) for line in listed)
    assert names == ["train/blue/3.png", "train/red/7.png", "val/red/0.png"]
    log = (tmp_path / "run" / "results.json").read_text()
    assert json.loads(log)["classification"]["val"]["loss"] > 0


def test_a_run_says_how_long_it_waited_for_data(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config(images, tmp_path / "run", 0)
    with caplog.at_level("INFO"):
        ClassifierTrainer(cfg).train()
    rows = read_metrics(cfg.OUTPUT_DIR)
    assert all(0 <= row["data_time"] <= row["time"] for row in rows if "time" in row)
    assert any("time" in row for row in rows)
    assert any(re.search(r" time: \S+ .*data_time: \d", line) for line in caplog.messages)


def test_a_cut_file_ends_a_run_at_once_by_default(broken: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 × image files that are truncated or broken"):
        ClassifierTrainer(config(broken, tmp_path / "run", 0))


def test_an_evaluation_without_them(broken: Path, images: Path, tmp_path: Path) -> None:
    for path in (broken / "val").glob("red/[0-3].png"):
        path.write_bytes(b"none")
    found, whole = (
        list(build_val_loader(cfg, build_dataset(cfg, "val", augment=False)))
        for cfg in (config(root, tmp_path, 4) for root in (broken, images))
    )
    assert [len(labels) for _, labels in found] == [4, 4, 0, 4]
    assert found[2][0].shape == (0, 3, 32, 32)
    for index in (0, 1, 3):
        assert torch.equal(found[index][0], whole[index][0])


def test_an_impossible_limit(images: Path, tmp_path: Path) -> None:
    cfg = config(images, tmp_path, -1)
    with pytest.raises(UserError, match="MAX_UNREADABLE_IMAGES is -1; expected a number"):
        build_val_loader(cfg, build_dataset(cfg, "val", augment=False))
