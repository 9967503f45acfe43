"""How many images a core makes ready in a second: folder, tar files, and Detectron2's mapper."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.structures import BoxMode
from PIL import Image

from backbones.errors import UserError
from detection.data.mapper import CheckedDatasetMapper
from detection.engine.provenance import provenance
from detection.engine.sampler import Augmented, Draw
from search.classification.data import build_transform, open_images
from search.classification.shards import write_shards
from search.config import load_search_config
from search.studies.markdown import beside, table

CLASSIFICATION, DETECTION = "imagenet", "coco"
SIZES = {CLASSIFICATION: (500, 375), DETECTION: (640, 480)}
"""Width and height in pixels that most images of the two have."""

_BYTES = {CLASSIFICATION: 110_000, DETECTION: 165_000}
"""Mean of a file, which decides what decoding costs."""

_CPU = ("MODEL.DEVICE", "cpu")

OBJECTS = 7
"""Of an image, as in COCO."""

LABELS = {
    "folder": "classifier, folder",
    "shards": "classifier, tar files",
    "mapper": "detector, this project's mapper",
    "detectron2": "detector, Detectron2's mapper",
}


def made_up_photo(data: str, seed: int) -> Image.Image:
    """Smooth colours under noise, of the usual size of a data set's photos.

    Args:
        data: a key of :data:`SIZES`.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    width, height = SIZES[data]
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = rng.normal(0, 8, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def save_as_usual(image: Image.Image, data: str, path: Path) -> int:
    """Writes a JPEG of about the usual size of a data set's files; returns its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(95, 40, -5):
        image.save(path, quality=quality)
        if path.stat().st_size <= _BYTES[data]:
            break
    return path.stat().st_size


def loader_report(images: int, repeats: int) -> dict[str, Any]:
    """Images per second of one process of one thread, made ready for training, one by one.

    Every kind reads the same files of its data set in turns; the disk's cache holds them.

    Args:
        images: of each kind and round.
        repeats: rounds; the figures are medians.

    Raises:
        UserError: if there are none.
    """
    if images < 2 or repeats < 1:
        raise UserError(
            f"--images is {images} and --repeats {repeats}; expected 2 or more images and 1 or "
            "more repeats"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            sizes, kinds = _kinds(Path(folder), images)
            rates: dict[str, list[float]] = {name: [] for name in kinds}
            for name in kinds:  # files and libraries are read once before
                kinds[name](0)
            for _ in range(repeats):
                for name, read in kinds.items():
                    start = time.process_time()
                    for number in range(images):
                        read(number)
                    rates[name].append(images / (time.process_time() - start))
        facts = provenance(threads=1)
    finally:
        torch.set_num_threads(threads)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    spread = {name: [min(found), max(found)] for name, found in rates.items()}
    return {
        **facts,
        "images": images,
        "repeats": repeats,
        "mean_bytes": sizes,
        "images_per_second": medians,
        "range": spread,
    }


def _kinds(folder: Path, images: int) -> tuple[dict[str, float], dict[str, Callable[[int], Any]]]:
    """Mean bytes of the files of each data set, and what makes one image ready, by kind."""
    sizes: dict[str, list[int]] = {CLASSIFICATION: [], DETECTION: []}
    for number in range(images):
        photo = made_up_photo(CLASSIFICATION, number)
        for split in ("train", "val") if number < 2 else ("train",):
            path = folder / CLASSIFICATION / split / str(number % 2) / f"{number:06d}.jpg"
            size = save_as_usual(photo, CLASSIFICATION, path)
        sizes[CLASSIFICATION].append(size)
        path = folder / DETECTION / f"{number:06d}.jpg"
        sizes[DETECTION].append(save_as_usual(made_up_photo(DETECTION, number), DETECTION, path))
    write_shards(folder / CLASSIFICATION, folder / "shards", 50_000_000)
    cfg = load_search_config("classification/spnas_imagenet.yaml", _CPU)
    transform = build_transform(cfg, is_training=True)
    sets = {
        name: Augmented(open_images(str(folder / place), "train", transform=transform), seed=0)
        for name, place in (("folder", CLASSIFICATION), ("shards", "shards"))
    }
    detector = load_search_config("detection/mask_rcnn_spnas_fpn_1x.yaml", _CPU)
    mappers = {
        "mapper": CheckedDatasetMapper(detector, is_train=True),
        "detectron2": DatasetMapper(detector, is_train=True),
    }

    def item(data: Augmented) -> Callable[[int], Any]:
        return lambda number: data[Draw(number, number)]

    def mapped(mapper: DatasetMapper) -> Callable[[int], Any]:
        return lambda number: mapper(_record(folder / DETECTION / f"{number:06d}.jpg", number))

    kinds = {name: item(data) for name, data in sets.items()}
    kinds |= {name: mapped(mapper) for name, mapper in mappers.items()}
    return {name: sum(found) / len(found) for name, found in sizes.items()}, kinds


def _record(path: Path, seed: int) -> dict[str, Any]:
    """In Detectron2's standard format, with objects as polygons."""
    rng = np.random.default_rng(seed)
    width, height = SIZES[DETECTION]
    annotations = []
    for _ in range(OBJECTS):
        w, h = rng.uniform(20, 200, 2)
        x, y = rng.random(2) * (width - w, height - h)
        corners = np.stack([[0, 0.5, 1, 0.5], [0.5, 0, 0.5, 1]], 1) * (w, h) + (x, y)
        annotations.append(
            {
                "bbox": [x, y, w, h],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 0,
                "iscrowd": 0,
                "segmentation": [corners.ravel().tolist()],
            }
        )
    facts = {"file_name": str(path), "image_id": seed, "width": width, "height": height}
    return {**facts, "annotations": annotations}


def loader_section(report: Mapping[str, Any]) -> str:
    """Images per second of a core, by kind."""
    rates, ranges = report["images_per_second"], report["range"]
    rows = [
        [label, f"{rates[name]:.0f}", f"{ranges[name][0]:.0f} to {ranges[name][1]:.0f}"]
        for name, label in LABELS.items()
    ]
    kib = {name: f"{size / 1024:.0f} KiB" for name, size in report["mean_bytes"].items()}
    (cw, ch), (dw, dh) = SIZES[CLASSIFICATION], SIZES[DETECTION]
    setting = (
        f"JPEGs of {cw}×{ch} pixels and {kib[CLASSIFICATION]} for classifiers, {dw}×{dh} and "
        f"{kib[DETECTION]} for detectors; medians of {report['repeats']} rounds of "
        f"{report['images']} images."
    )
    found = table(["made ready for training", "images per second and core", "range"], rows)
    return f"{found}\n\n{setting} {beside(report)}"
