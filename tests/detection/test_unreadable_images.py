"""Detectors on data sets with images that cannot be read."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode

from backbones import UserError
from detection.data.checks import check_data_set, load_records
from detection.data.image_checks import check_before_run
from detection.data.loader import build_test_loader, build_train_loader, skip_batches
from detection.engine.unreadable import UNREADABLE_FILE, UnreadableImages
from tests.made_images import spoil_pixels

Register = Callable[..., str]


@pytest.fixture
def broken_cfg(register: Register, tiny_cfg: CfgNode, own_json: Path, tmp_path: Path) -> CfgNode:
    """A set of six images, of which one is cut and one has spoilt pixels."""
    cut = own_json.parent / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    spoil_pixels(own_json.parent / "4.jpg")
    tiny_cfg.DATASETS.TRAIN = tiny_cfg.DATASETS.TEST = (register(own_json),)
    tiny_cfg.DATALOADER.MAX_UNREADABLE_IMAGES = 2
    tiny_cfg.OUTPUT_DIR = str(tmp_path / "run")
    return tiny_cfg


def image_ids(loader: Any, batches: int) -> list[list[int]]:
    return [[r["image_id"] for r in batch] for batch in itertools.islice(loader, batches)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_leaves_them_out(broken_cfg: CfgNode, workers: int) -> None:
    """And a resumed one has the same in their places."""
    broken_cfg.DATALOADER.NUM_WORKERS = workers
    whole = image_ids(build_train_loader(broken_cfg), 9)
    assert {name for batch in whole for name in batch} == {100, 102, 103}
    resumed = build_train_loader(broken_cfg)
    skip_batches(resumed, 5)
    assert image_ids(resumed, 4) == whole[5:]
    names = {Path(name).name for name in UnreadableImages(2, broken_cfg.OUTPUT_DIR).listed()}
    assert names == {"1.jpg", "4.jpg"}


def test_detectron2s_own_samplers(broken_cfg: CfgNode) -> None:
    broken_cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    broken_cfg.DATALOADER.REPEAT_THRESHOLD = 0.1
    found = image_ids(build_train_loader(broken_cfg), 9)
    assert {name for batch in found for name in batch} == {100, 102, 103}
    assert Path(broken_cfg.OUTPUT_DIR, UNREADABLE_FILE).exists()


def test_a_test_set_has_to_be_whole(broken_cfg: CfgNode) -> None:
    (name,) = broken_cfg.DATASETS.TEST
    with pytest.raises(UserError, match="1 × image files that are truncated"):
        check_data_set(broken_cfg, name, training=False)
    with pytest.raises(UserError, match=r"cannot read the image '.*1.jpg'"):
        list(build_test_loader(broken_cfg, name))


def test_more_than_allowed_are_refused_before_the_run(
    broken_cfg: CfgNode, own_json: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (own_json.parent / "5.jpg").write_bytes(b"")
    (name,) = broken_cfg.DATASETS.TRAIN
    paths = [record["file_name"] for record in load_records(name)]
    with pytest.raises(UserError, match="1 × image files of 0 bytes"):
        check_before_run(name, paths, unreadable=1)
    with caplog.at_level(logging.WARNING):
        check_before_run(name, paths, unreadable=2)
    assert len(caplog.messages) == 2
    assert all("MAX_UNREADABLE_IMAGES allows" in message for message in caplog.messages)
