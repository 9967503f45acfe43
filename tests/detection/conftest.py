"""A detector small enough for tests, and the command line in-process."""

from __future__ import annotations

import itertools
import json
import runpy
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import setuptools  # noqa: F401  (pip, imported by the installer's tests, would make it unimportable)
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data.datasets import register_coco_instances
from detectron2.utils import logger as detectron2_logger

from detection import add_spnas_config
from tests.tiny_coco import BASE, ROOT, TINY_MODEL, draw, write_dataset


@pytest.fixture
def own_json(tmp_path: Path) -> Path:
    """The miniature's annotation file, beside its images, to be spoiled by a test."""
    return write_dataset(tmp_path / "own")


@pytest.fixture
def register() -> Callable[..., str]:
    """Registers a data set for the length of a test: ``register(json_file, folder)``."""
    numbers = itertools.count()

    def function(json_file: Path, folder: Path | None = None) -> str:
        name = f"passing_{next(numbers)}"
        register_coco_instances(name, {}, str(json_file), str(folder or json_file.parent))
        return name

    return function


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """``photos/train.json`` with ``photos/train``, and the same for ``val``."""
    folder = tmp_path / "photos"
    for seed, split in enumerate(("train", "val")):
        (folder / split).mkdir(parents=True)
        (folder / f"{split}.json").write_text(json.dumps(draw(folder / split, seed)))
    return folder


@pytest.fixture
def tiny_cfg(tiny_coco: Path, tmp_path: Path) -> CfgNode:
    """A Mask R-CNN that trains a step in a tenth of a second."""
    torch.set_num_threads(1)
    cfg = get_cfg()
    add_spnas_config(cfg)
    cfg.merge_from_file(str(BASE))
    cfg.merge_from_list(TINY_MODEL)
    cfg.DATASETS.TRAIN = ("tiny_train",)
    cfg.DATASETS.TEST = ("tiny_val",)
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    return cfg


@pytest.fixture
def train_net(
    tiny_coco: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """``tools/train_net.py`` on the miniature: ``train_net(*arguments)`` → exit code, output."""
    torch.set_num_threads(1)
    script = ROOT / "tools" / "train_net.py"
    # as in a process of its own, which has not logged yet what Detectron2 logs once
    monkeypatch.setattr(detectron2_logger, "_LOG_COUNTER", Counter())

    def function(*arguments: str) -> tuple[int, str]:
        flags = [item for item in arguments if item.startswith("--")]
        pairs = [item for item in arguments if not item.startswith("--")]
        defaults = [
            *("DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "('tiny_val',)"),
            *("OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()"),
        ]
        command = [str(script), "--config-file", str(BASE), *flags, "--num-gpus", "0"]
        monkeypatch.setattr(sys, "argv", [*command, *TINY_MODEL, *defaults, *pairs])
        capfd.readouterr()
        code = 0
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as error:
            code = int(error.code or 0)
        output = capfd.readouterr()
        return code, output.out + output.err

    return function
