"""A COCO-shaped miniature, and options that make a detector small enough for tests."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data.datasets import register_coco_instances
from PIL import Image
from pycocotools import mask as mask_util

from detection import add_spnas_config
from detection.engine.config_file import load_config

ROOT = Path(__file__).resolve().parents[1]
CATEGORIES = [
    {"id": 3, "name": "box"},
    {"id": 5, "name": "disc"},
    {"id": 11, "name": "bar"},
]
TINY_MODEL = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.MASK_ON", "True"),
    *("MODEL.SPNAS.NORM", "BN", "MODEL.FPN.OUT_CHANNELS", "16"),
    *("MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.ROI_MASK_HEAD.NUM_CONV", "1"),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", "10", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16", "TEST.DETECTIONS_PER_IMAGE", "5"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "96", "INPUT.MIN_SIZE_TEST", "64"),
    *("INPUT.MAX_SIZE_TEST", "96", "INPUT.MASK_FORMAT", "bitmask"),
    *("DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "2"),
    *("WANDB.ENABLED", "False", "SEED", "1"),
]
BASE = ROOT / "configs" / "detection" / "Base-SPNAS-FPN.yaml"


def draw(folder: Path, seed: int, images: int = 6) -> dict[str, Any]:
    """Images with one object of each class, wide ones and tall ones, as COCO annotations.

    The classes' ids have gaps, one mask is a polygon and the others run-length encoded, one
    object is a crowd, and the last image has nothing on it.
    """
    rng = np.random.default_rng(seed)
    annotations: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
    for index in range(images):
        height, width = (72, 96) if index % 2 else (96, 72)
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        record = {"id": 100 + index, "height": height, "width": width}
        annotations["images"].append({**record, "file_name": f"{index}.jpg"})
        for kind in range(3 if index < images - 1 else 0):
            x, y, w, h = 4 + 22 * kind, 6 + 8 * kind, 18, 14 + 12 * kind
            mask = np.zeros((height, width), np.uint8, order="F")
            mask[y : y + h, x : x + w] = 1
            pixels[mask > 0] = (80 + 60 * kind, 200 - 50 * kind, 120)
            rle = mask_util.encode(mask)
            rle["counts"] = rle["counts"].decode()
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations["annotations"].append(
                {
                    "id": 1 + len(annotations["annotations"]),
                    "image_id": record["id"],
                    "category_id": CATEGORIES[kind]["id"],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(index == 1 and kind == 2),
                    "segmentation": polygon if kind == 0 else rle,
                }
            )
        Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return annotations


def write_dataset(folder: Path, seed: int = 0) -> Path:
    """The miniature in ``folder``; returns the annotation file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "annotations.json"
    path.write_text(json.dumps(draw(folder, seed)))
    return path


@pytest.fixture(scope="session")
def tiny_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature, registered as ``tiny_train`` and ``tiny_val``; its annotation file."""
    folder = tmp_path_factory.mktemp("tiny")
    json_file = write_dataset(folder)
    for name in ("tiny_train", "tiny_val"):
        register_coco_instances(name, {}, str(json_file), str(folder))
    return json_file


def own_config(*opts: str, file: str = "") -> CfgNode:
    """What a command line asks for, not resolved yet."""
    return load_config(
        argparse.Namespace(config_file=file, opts=list(opts), num_gpus=0), add_spnas_config
    )
