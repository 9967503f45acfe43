"""COCO's average precision, computed by faster-coco-eval or pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backbones.errors import UserError
from detection.truth import Result, Truth

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""Names of the first six of COCO's summary figures, in its order."""

BACKENDS = ("faster", "pycocotools")
TASKS = ("bbox", "segm", "keypoints")


def score(
    annotations: Mapping[str, Any],
    results: Sequence[Result],
    task: str = "bbox",
    backend: str = "faster",
    max_dets: int = 100,
    kpt_oks_sigmas: Sequence[float] = (),
) -> dict[str, float]:
    """Average precision of detections, in percent.

    Args:
        annotations: the decoded annotation file.
        results: the detections of all images; may be empty.
        task: ``bbox``, ``segm`` or ``keypoints``.
        backend: ``faster`` (faster-coco-eval) or ``pycocotools``.
        max_dets: highest-scoring detections per image that count.
        kpt_oks_sigmas: of the keypoints; empty for COCO's.

    Returns:
        AP, AP50, AP75 and by object scale APs, APm, APl; then ``AP-<class>`` for every class, if
        there is more than one. NaN where there is no object to find. Scales are those of the file's
        areas; where it has none, of the mask, or else of the box.

    Raises:
        UserError: if the backend is unknown, two images or classes have one id, or a detection is
            of an unknown image.
    """
    if backend not in BACKENDS:
        raise UserError(f"TEST.COCO_BACKEND is '{backend}'; expected one of {', '.join(BACKENDS)}")
    assert task in TASKS, task
    truth = Truth.of(annotations, task)
    evaluation = _evaluation(truth, results, task, backend)
    if task != "keypoints":
        evaluation.params.maxDets = [1, 10, max_dets]
    elif kpt_oks_sigmas:
        evaluation.params.kpt_oks_sigmas = np.asarray(kpt_oks_sigmas)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return _metrics(evaluation, task, truth.classes)


def _evaluation(truth: Truth, results: Sequence[Result], task: str, backend: str) -> Any:
    """An evaluation that has not run."""
    detections = truth.numbered(results, task)
    if backend == "faster":
        import faster_coco_eval

        coco = faster_coco_eval.COCO(truth.content)
        return faster_coco_eval.COCOeval_faster(
            coco, coco.loadRes(detections), task, print_function=lambda *_: None
        )
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth.content
        coco.createIndex()
        if detections:
            found = coco.loadRes(detections)
        else:  # pycocotools looks at the first detection, so there has to be one
            found = COCO()
            found.dataset = {**truth.content, "annotations": []}
            found.createIndex()
        return COCOeval(coco, found, task)


def _metrics(evaluation: Any, task: str, classes: Sequence[str]) -> dict[str, float]:
    """Means over COCO's precision array (IoU, recall, class, scale, detections)."""
    precision = np.asarray(evaluation.eval["precision"])
    scales = list(evaluation.params.areaRngLbl)
    thresholds = np.asarray(evaluation.params.iouThrs)

    def mean(values: np.ndarray) -> float:
        values = values[values > -1]
        return float(values.mean() * 100) if values.size else float("nan")

    every = precision[:, :, :, scales.index("all"), -1]
    metrics = {
        "AP": mean(every),
        "AP50": mean(every[np.isclose(thresholds, 0.5)]),
        "AP75": mean(every[np.isclose(thresholds, 0.75)]),
    }
    for name, scale in (("APs", "small"), ("APm", "medium"), ("APl", "large")):
        if scale in scales:  # there are no small objects among COCO's keypoints
            metrics[name] = mean(precision[:, :, :, scales.index(scale), -1])
    if len(classes) > 1 and task != "keypoints":
        for number in evaluation.params.catIds:
            metrics[f"AP-{classes[number - 1]}"] = mean(every[:, :, number - 1])
    return metrics
