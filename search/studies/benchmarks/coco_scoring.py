"""What scoring costs: faster-coco-eval beside pycocotools, on one made-up set of detections."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from backbones.errors import UserError
from detection.engine.provenance import provenance
from detection.scoring import BACKENDS, Result, score
from search.studies.markdown import beside, table

CLASSES = 80
SIDE = 640
OBJECTS = 7
"""Objects per image, as in COCO."""


def made_up_set(images: int, detections: int, seed: int = 0) -> tuple[dict[str, Any], list[Result]]:
    """Annotations and detections of boxes, with sizes over all of COCO's scales.

    Args:
        images: how many.
        detections: per image; one in three is a jittered object of the right class.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    objects = _boxes(rng, images * OBJECTS)
    classes = rng.integers(1, CLASSES + 1, len(objects))
    annotations: dict[str, Any] = {
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
        "annotations": [
            {
                "id": index + 1,
                "image_id": index // OBJECTS + 1,
                "category_id": int(category),
                "bbox": box.tolist(),
                "area": float(box[2] * box[3]),
                "iscrowd": 0,
            }
            for index, (box, category) in enumerate(zip(objects, classes, strict=True))
        ],
    }
    image_of = np.repeat(np.arange(images), detections)
    boxes = _boxes(rng, len(image_of))
    found = rng.integers(1, CLASSES + 1, len(image_of))
    true = rng.random(len(image_of)) < 1 / 3
    source = image_of[true] * OBJECTS + rng.integers(0, OBJECTS, int(true.sum()))
    boxes[true] = objects[source] * rng.normal(1, 0.05, (len(source), 4))
    found[true] = classes[source]
    scores = rng.random(len(image_of))
    results = [
        {"image_id": int(i) + 1, "category_id": int(c), "bbox": b.tolist(), "score": float(s)}
        for i, c, b, s in zip(image_of, found, boxes, scores, strict=True)
    ]
    return annotations, results


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    """(count, 4) x, y, width and height, log-uniform from 8 to 400 pixels."""
    sizes = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    return np.concatenate([rng.random((count, 2)) * (SIDE - sizes), sizes], 1)


def scoring_report(images: int, detections: int) -> dict[str, Any]:
    """Seconds of both backends on one set, their ratio, and how far their figures are apart.

    Args:
        images: how many.
        detections: per image.

    Raises:
        UserError: if there are none.
    """
    if images < 1 or detections < 1:
        raise UserError(
            f"--images is {images} and --detections {detections}; expected 1 or more of each"
        )
    annotations, results = made_up_set(images, detections)
    seconds, figures = {}, {}
    for backend in BACKENDS:
        start = time.perf_counter()
        figures[backend] = score(annotations, results, "bbox", backend)
        seconds[backend] = time.perf_counter() - start
    faster, reference = (np.array(list(figures[name].values())) for name in BACKENDS)
    return {
        **provenance(),
        "versions": {name: version(name) for name in ("faster-coco-eval", "pycocotools")},
        "images": images,
        "detections": detections,
        "seconds": seconds,
        "ratio": seconds["pycocotools"] / seconds["faster"],
        "AP": figures["faster"]["AP"],
        "largest_difference": float(np.nanmax(np.abs(faster - reference))),
    }


def scoring_section(report: Mapping[str, Any]) -> str:
    """Both implementations of COCO's AP on one set."""
    rows = [
        [
            name,
            f"{report['seconds'][backend]:.1f} s",
            f"{report['seconds'][backend] / report['seconds']['faster']:.1f}",
        ]
        for backend, name in (("faster", "faster-coco-eval"), ("pycocotools", "pycocotools"))
    ]
    setting = f"{report['images']:,} images, {report['detections']} detections each"
    found = table([setting, "time", "ratio"], rows)
    difference = f"Largest difference of any figure: {report['largest_difference']:.0e} %."
    return f"{found}\n\n{difference} {beside(report)}"
