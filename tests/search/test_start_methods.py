"""Loader processes of both stages, however the system starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny_coco import draw

ROOT = Path(__file__).resolve().parents[2]

# In a file, since a process that is not forked imports the script that it belongs to.
_SCRIPT = """
import sys

import torch.multiprocessing as mp


def main(method, folder):
    mp.set_start_method(method)
    from detectron2.config import get_cfg
    from detectron2.data import DatasetFromList, MapDataset
    from detectron2.data.datasets import register_coco_instances
    from torch.utils.data import DataLoader

    from detection.data import loader as detector
    from search.classification import data as classifier
    from search.config import add_search_config

    cfg = get_cfg()
    add_search_config(cfg)
    register_coco_instances("tiny", {}, f"{folder}/tiny.json", f"{folder}/tiny")
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("tiny",)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.MASK_ON = 3, True
    cfg.INPUT.MASK_FORMAT, cfg.SOLVER.IMS_PER_BATCH = "bitmask", 2
    cfg.DATALOADER.NUM_WORKERS = 1
    batch = next(iter(detector.build_train_loader(cfg)))
    found = [len(batch), len(list(detector.build_test_loader(cfg, "tiny")))]
    doubled = MapDataset(DatasetFromList([1, 2, 3, 4]), lambda number: 2 * number)
    found.append(sum(int(number) for number in DataLoader(doubled, num_workers=1)))
    cfg.CLASSIFICATION.DATASET = f"{folder}/classes"
    cfg.CLASSIFICATION.NUM_CLASSES, cfg.CLASSIFICATION.INPUT_SIZE = 0, 32
    images = classifier.build_dataset(cfg, "val", augment=True)
    found.append(sum(len(targets) for _, targets in classifier.build_val_loader(cfg, images)))
    print("found", found)


if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_loader_processes(method: str, tmp_path: Path) -> None:
    """``forkserver`` is the default of Linux from Python 3.14, ``spawn`` of Windows and macOS."""
    if method == "forkserver" and sys.platform == "win32":
        pytest.skip("Windows has no forkserver")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny.json").write_text(json.dumps(draw(tmp_path / "tiny", 1)), encoding="utf-8")
    for name in ("a", "b"):
        (tmp_path / "classes" / "val" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "classes" / "val" / name / "0.png")
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(script), method, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "found [2, 6, 20, 2]" in run.stdout, run.stdout + run.stderr
