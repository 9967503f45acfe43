"""COCO's average precision, computed by faster-coco-eval or pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backbones.errors import UserError

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""Names of the first six of COCO's summary figures, in its order."""

BACKENDS = ("faster", "pycocotools")
TASKS = ("bbox", "segm", "keypoints")

Result = dict[str, Any]
"""One detection in COCO's result format."""


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
        there is more than one. NaN where there is no object to find.

    Raises:
        UserError: if the backend is unknown, or a detection is of an unknown image.
    """
    if backend not in BACKENDS:
        raise UserError(f"TEST.COCO_BACKEND is '{backend}'; expected one of {', '.join(BACKENDS)}")
    assert task in TASKS, task
    _check_image_ids(annotations, results)
    evaluation = _evaluation(annotations, results, task, backend)
    if task != "keypoints":
        evaluation.params.maxDets = [1, 10, max_dets]
    elif kpt_oks_sigmas:
        evaluation.params.kpt_oks_sigmas = np.asarray(kpt_oks_sigmas)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return _metrics(evaluation, task, annotations["categories"])


def _evaluation(
    annotations: Mapping[str, Any], results: Sequence[Result], task: str, backend: str
) -> Any:
    """An evaluation that has not run. Works on copies: both implementations write into theirs."""
    truth = {**annotations, "annotations": _normalised(annotations["annotations"])}
    # With boxes present, masks would be assigned to scales by the area of their box.
    fields = ("bbox",) if task == "segm" else ()
    detections = [
        {key: value for key, value in result.items() if key not in fields} for result in results
    ]
    if backend == "faster":
        import faster_coco_eval

        coco = faster_coco_eval.COCO(truth)
        return faster_coco_eval.COCOeval_faster(
            coco, coco.loadRes(detections), task, print_function=lambda *_: None
        )
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        if detections:
            found = coco.loadRes(detections)
        else:  # pycocotools looks at the first detection, so there has to be one
            found = COCO()
            found.dataset = {**truth, "annotations": []}
            found.createIndex()
        return COCOeval(coco, found, task)


def _normalised(annotations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies with the fields that pycocotools insists on, and ids from 1.

    Both implementations take id 0 for "matched to nothing".
    """
    copies = [dict(annotation) for annotation in annotations]
    renumber = any(annotation["id"] == 0 for annotation in copies)
    for index, annotation in enumerate(copies, start=1):
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        if renumber:
            annotation["id"] = index
    return copies


def _check_image_ids(annotations: Mapping[str, Any], results: Sequence[Result]) -> None:
    known = {image["id"] for image in annotations["images"]}
    for result in results:
        if result["image_id"] not in known:
            raise UserError(
                f"a detection is of image {result['image_id']}, which the annotation file does "
                "not list; the detections belong to another data set"
            )


def _metrics(
    evaluation: Any, task: str, categories: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
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
    if len(categories) > 1 and task != "keypoints":
        names = {category["id"]: category["name"] for category in categories}
        for index, identity in enumerate(evaluation.params.catIds):
            metrics[f"AP-{names[identity]}"] = mean(every[:, :, index])
    return metrics
