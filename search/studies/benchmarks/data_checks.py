"""What it costs to check a data set of COCO's size before a run."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backbones.errors import UserError
from detection.engine.provenance import provenance
from search.studies.benchmarks.search_step import resident
from search.studies.markdown import beside, table

CLASSES = 80
SIDE = 64
POINTS = 12
"""Of every polygon."""

_LINKS = 10_000  # of one file: file systems allow some 65,000
_FOLDER = 1_000


def write_made_up_set(folder: Path, images: int, annotations: int, seed: int = 0) -> Path:
    """Writes a data set whose images are a few small files under many names.

    Args:
        folder: for ``annotations.json`` and the images.
        images: how many.
        annotations: how many in all; each has a polygon and its box.
        seed: of everything.

    Returns:
        The annotation file.
    """
    names = [f"{number // _FOLDER:04d}/{number}.png" for number in range(images)]
    pixels = Image.new("RGB", (SIDE, SIDE), (90, 120, 60))
    for number, name in enumerate(names):
        path = folder / name
        if number % _FOLDER == 0:
            path.parent.mkdir(parents=True)
        if number % _LINKS == 0:
            original = path
            pixels.save(path)
        else:
            os.link(original, path)
    path = folder / "annotations.json"
    with open(path, "w", encoding="utf-8") as file:
        sizes = {"width": SIDE, "height": SIDE}
        listed = [{"id": n, "file_name": name, **sizes} for n, name in enumerate(names, 1)]
        categories = [{"id": n, "name": f"class {n}"} for n in range(1, CLASSES + 1)]
        file.write(f'{{"images": {json.dumps(listed)}, "categories": {json.dumps(categories)}, ')
        file.write('"annotations": [')
        for number, item in enumerate(_annotations(images, annotations, seed)):
            file.write((", " if number else "") + json.dumps(item))
        file.write("]}")
    return path


def _annotations(images: int, count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    for number in range(count):
        radius = rng.uniform(2, SIDE / 4, 2)
        centre = radius + rng.random(2) * (SIDE - 2 * radius)
        points = (centre + radius * circle).round(2)
        low, high = points.min(0), points.max(0)
        yield {
            "id": number + 1,
            "image_id": number % images + 1,
            "category_id": number % CLASSES + 1,
            "bbox": [*low.tolist(), *(high - low).round(2).tolist()],
            "area": round(float(3 * radius.prod()), 2),
            "iscrowd": 0,
            "segmentation": [points.ravel().tolist()],
        }


def data_report(images: int, annotations: int) -> dict[str, Any]:
    """Processor time and peak memory of checking a made-up data set, in a process of its own.

    Args:
        images: how many.
        annotations: how many in all.

    Raises:
        UserError: if there are none.
    """
    if images < 1 or annotations < 1:
        raise UserError(
            f"--images is {images} and --annotations {annotations}; expected 1 or more of each"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = write_made_up_set(Path(folder), images, annotations)
        size = path.stat().st_size
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            figures = pool.submit(_measured, str(path)).result()
    facts = {"images": images, "annotations": annotations, "json_bytes": size}
    return {**provenance(), **facts, **figures}


def _measured(path: str) -> dict[str, Any]:
    from detectron2.config import get_cfg
    from detectron2.data.datasets import register_coco_instances

    from detection.config import add_spnas_config
    from detection.data.annotations.file import read_annotations, reading_once
    from detection.data.checks import check_data_set
    from detection.data.inspection import inspect

    register_coco_instances("made_up", {}, path, str(Path(path).parent))
    cfg = get_cfg()
    add_spnas_config(cfg)
    cfg.MODEL.MASK_ON = True
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("made_up",), ()
    before = resident("VmRSS")
    seconds = {}
    with reading_once():
        start = time.process_time()
        read_annotations(path)
        seconds["read"] = time.process_time() - start
        start = time.process_time()
        check_data_set(cfg, "made_up", training=True)
        seconds["check"] = time.process_time() - start
    start = time.process_time()
    inspect(cfg, lambda text: None)
    seconds["inspect"] = time.process_time() - start
    return {"seconds": seconds, "peak_bytes": resident("VmHWM") - before}


def data_section(report: Mapping[str, Any]) -> str:
    """What checks before a run, and the whole of ``tools/check_data.py``, cost."""
    seconds = report["seconds"]
    before_run = seconds["read"] + seconds["check"]
    rows = [
        ["reading the annotation file", f"{seconds['read']:.1f} s"],
        ["reading and checking, as before every run", f"{before_run:.1f} s"],
        ["`spnas check-data`, with all it says", f"{seconds['inspect']:.1f} s"],
    ]
    size = report["json_bytes"] / 2**20
    setting = f"{report['images']:,} images, {report['annotations']:,} annotations ({size:.0f} MiB)"
    memory = f"Peak memory: {report['peak_bytes'] / 2**30:.2f} GiB."
    return f"{table([setting, 'processor time'], rows)}\n\n{memory} {beside(report)}"
