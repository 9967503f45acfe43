"""Writes the digits data set: COCO scenes and an ImageFolder of single digits.

Every image has its own seed, made from the task, the split and its number, so the result does not
depend on how many images are made or in which order.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from backbones.errors import UserError
from detection.data.canvas import sharpen
from detection.data.scenes import (
    DigitImageConfig,
    Scene,
    SceneConfig,
    render_digit_image,
    render_scene,
)

SPLITS = ("train", "val")
CLASSES = tuple(str(digit) for digit in range(10))
SCALES = ("small", "medium", "large")

_SEED = 20190405  # the day Single-Path NAS appeared on arXiv
_SCENES, _DIGIT_IMAGES = 0, 1
_HELD_OUT = 500  # of the 1,797 digits


@dataclass(frozen=True, eq=False)
class Pool:
    """The digits of one split.

    Attributes:
        digits: float32 (N, 8, 8) in 0..1.
        labels: int64 (N,).
        indices: int64 (N,), positions in `sklearn.datasets.load_digits`.
    """

    digits: NDArray[np.float32]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


def load_pools() -> dict[str, Pool]:
    """scikit-learn's digits, split by image and stratified by class.

    Returns:
        A pool for each of `SPLITS`, in shuffled order; no digit is in both.

    Raises:
        UserError: if scikit-learn is missing.
    """
    state = random.getstate()
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError:
        raise UserError(
            "the digits data set is made from scikit-learn's handwritten digits, and scikit-learn "
            "is not installed; run 'pip install scikit-learn'"
        ) from None
    finally:
        # The import itself draws: a run that makes its data set would train on other augmentation.
        random.setstate(state)
    source = load_digits()
    digits = sharpen((source.images / 16).astype(np.float32))
    labels = source.target.astype(np.int64)
    train, val = train_test_split(
        np.arange(len(labels)), test_size=_HELD_OUT, stratify=labels, random_state=_SEED
    )
    return {
        split: Pool(digits[indices], labels[indices], indices)
        for split, indices in zip(SPLITS, (train, val), strict=True)
    }


def image_rng(task: int, split: str, number: int) -> np.random.Generator:
    """The random stream of one image."""
    return np.random.default_rng(np.random.SeedSequence([_SEED, task, SPLITS.index(split), number]))


def scene_rng(split: str, number: int) -> np.random.Generator:
    """The random stream of the detection scene ``number`` of a split."""
    return image_rng(_SCENES, split, number)


def write_scenes(
    folder: Path, split: str, pool: Pool, count: int, config: SceneConfig
) -> dict[str, Any]:
    """Writes ``{split}/*.jpg`` and ``annotations/instances_{split}.json`` below ``folder``.

    Returns:
        Counts: ``images``, ``instances`` of each scale, ``classes`` with the instances of each.
    """
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        scene = render_scene(pool.digits, pool.labels, scene_rng(split, number), config)
        height, width = scene.image.shape[:2]
        name = f"{number:06d}.jpg"
        Image.fromarray(scene.image).save(folder / split / name, quality=92)
        images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
        for annotation in scene_annotations(scene, pool.indices):
            ids = {"id": len(annotations) + 1, "image_id": number + 1}
            annotations.append(ids | annotation)
    document = {
        "info": {"description": f"spnas digits, {split} scenes"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
    }
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return _count_instances(len(images), annotations)


def scene_annotations(scene: Scene, indices: NDArray[np.int64]) -> list[dict[str, Any]]:
    """COCO annotations of a scene, without ``id`` and ``image_id``.

    Args:
        indices: positions in scikit-learn's data of the pool that the scene was drawn from.

    Returns:
        One dict per digit; ``segmentation`` is compressed RLE, ``area`` its pixels, ``bbox`` its
        tight XYWH box and ``digit_index`` the handwritten digit it shows.
    """
    annotations = []
    for mask, label, member in zip(scene.masks, scene.labels, scene.digit_indices, strict=True):
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        annotations.append(
            {
                "category_id": label + 1,
                "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode()},
                "area": int(mask.sum()),
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "iscrowd": 0,
                "digit_index": int(indices[member]),
            }
        )
    return annotations


def scale_of(area: float) -> str:
    """COCO's object scale of a mask area in pixels."""
    if area < 32**2:
        return "small"
    return "medium" if area <= 96**2 else "large"


def _count_instances(images: int, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    instances = dict.fromkeys(SCALES, 0)
    classes = dict.fromkeys(CLASSES, 0)
    for annotation in annotations:
        instances[scale_of(annotation["area"])] += 1
        classes[CLASSES[annotation["category_id"] - 1]] += 1
    return {"images": images, "instances": instances, "classes": classes}


def write_digit_images(
    folder: Path, split: str, pool: Pool, count: int, config: DigitImageConfig
) -> dict[str, Any]:
    """Writes ``classification/{split}/{class}/{digit index}_{rendering}.png`` below ``folder``.

    The pool is gone through as often as ``count`` asks for, each time drawn anew.

    Returns:
        Counts: ``images``, ``classes`` with the images of each.
    """
    classes = dict.fromkeys(CLASSES, 0)
    for name in CLASSES:
        (folder / "classification" / split / name).mkdir(parents=True)
    for number in range(count):
        rendering, member = divmod(number, len(pool.digits))
        rng = image_rng(_DIGIT_IMAGES, split, number)
        image = render_digit_image(pool.digits, member, rng, config)
        name = CLASSES[int(pool.labels[member])]
        classes[name] += 1
        path = folder / "classification" / split / name
        file_name = f"{int(pool.indices[member]):04d}_{rendering}.png"
        Image.fromarray(image).save(path / file_name, compress_level=1)
    return {"images": count, "classes": classes}
