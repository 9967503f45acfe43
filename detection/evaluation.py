"""Evaluation of COCO-type data sets: predictions are written down, then scored."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator as Detectron2COCOEvaluator
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, coco_evaluation
from detectron2.utils import comm
from pycocotools.coco import COCO
from tabulate import tabulate

from backbones.errors import UserError
from backbones.files import read_json, write_atomic
from detection.data.annotations.file import read_annotations
from detection.engine.console import FILE_ONLY
from detection.modeling.meta_arch import evaluated_tasks
from detection.scoring import BACKENDS, Result, score
from detection.visualization import PredictionImages

PREDICTIONS_FILE = "coco_instances_results.json"

COCO_DETECTIONS = 100
"""Detections per image that COCO's AP counts."""

_log = logging.getLogger(__name__)


class _Annotations(COCO):
    """pycocotools' index of an annotation file, read as everywhere in the project."""

    def __init__(self, annotation_file: str) -> None:
        super().__init__()
        self.dataset = dict(read_annotations(annotation_file).content)
        if all("id" in item for item in self.dataset.get("annotations", ())):
            self.createIndex()


class COCOEvaluator(Detectron2COCOEvaluator):
    """Detectron2's evaluator with two scoring backends, that also answers without a detection.

    Masks are kept run-length encoded. The predictions are written, whole, before they are scored.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        backend: str = "faster",
        max_dets_per_image: int | None = None,
        kpt_oks_sigmas: Sequence[float] = (),
    ) -> None:
        """As Detectron2's, apart from ``backend``.

        Args:
            dataset_name: a registered data set.
            tasks: of ``bbox``, ``segm`` and ``keypoints``; None takes what the detections have.
            distributed: gather the detections of all processes.
            output_dir: where the predictions are written; None for nowhere.
            backend: ``faster`` or ``pycocotools``.
            max_dets_per_image: detections per image that count; None for 100.
            kpt_oks_sigmas: of the keypoints; empty for COCO's.
        """
        if backend not in BACKENDS:
            raise UserError(
                f"TEST.COCO_BACKEND is '{backend}'; expected one of {', '.join(BACKENDS)}"
            )
        with mock.patch.object(coco_evaluation, "COCO", _Annotations):
            super().__init__(
                dataset_name,
                tuple(tasks) if tasks else None,
                distributed,
                output_dir,
                max_dets_per_image=max_dets_per_image,
                use_fast_impl=False,
                kpt_oks_sigmas=tuple(kpt_oks_sigmas),
            )
        self._backend = backend
        self._max_dets = max_dets_per_image or COCO_DETECTIONS
        self._sigmas = tuple(kpt_oks_sigmas)

    def evaluate(self, img_ids: Sequence[int] | None = None) -> dict[str, dict[str, float]]:
        """Gathers, writes and scores the predictions.

        Args:
            img_ids: images to score; None for all.

        Returns:
            On the main process, for each task, what `detection.scoring.score` returns.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return {}
        if any("proposals" in prediction for prediction in predictions):
            self._results: dict[str, dict[str, float]] = OrderedDict()
            self._eval_box_proposals(predictions)
            return dict(self._results)
        results = self._coco_results(predictions)
        if self._output_dir:
            write_atomic(Path(self._output_dir) / PREDICTIONS_FILE, json.dumps(results))
        if not self._do_evaluation:
            _log.info("The annotation file has no annotations: nothing is scored")
            return {}
        annotations = self._coco_api.dataset
        if img_ids is not None:
            annotations = _subset(annotations, set(img_ids))
            results = [result for result in results if result["image_id"] in set(img_ids)]
        tasks = self._tasks or tuple(self._tasks_from_predictions(results))
        return self._score(annotations, results, tasks)

    def _coco_results(self, predictions: Sequence[Mapping[str, Any]]) -> list[Result]:
        """All detections in COCO's result format, with the data set's own class ids."""
        mapping = self._metadata.get("thing_dataset_id_to_contiguous_id")
        ids = {v: k for k, v in mapping.items()} if mapping else None
        results = []
        for prediction in predictions:
            for result in prediction.get("instances", ()):
                category = result["category_id"]
                if ids is not None and category not in ids:
                    raise UserError(
                        f"a detection has class {category}, but data set "
                        f"'{self._metadata.name}' has {len(ids)} classes; set the model's "
                        "NUM_CLASSES to that"
                    )
                results.append({**result, "category_id": ids[category] if ids else category})
        return results

    def _score(
        self, annotations: Mapping[str, Any], results: Sequence[Result], tasks: Sequence[str]
    ) -> dict[str, dict[str, float]]:
        scores: dict[str, dict[str, float]] = OrderedDict()
        for task in tasks:
            found = score(annotations, results, task, self._backend, self._max_dets, self._sigmas)
            scores[task] = found
            main = {name: value for name, value in found.items() if "-" not in name}
            classes = {name[3:]: value for name, value in found.items() if name not in main}
            _log.info("%s of %s:\n%s", task, self._metadata.name, _table(main))
            if classes:
                table = _class_table(classes)
                _log.info("AP by class, %s:\n%s", task, table, extra=FILE_ONLY)
        return scores


def score_file(
    predictions: str | os.PathLike[str],
    dataset_name: str,
    tasks: Sequence[str],
    backend: str = "faster",
    max_dets: int = 100,
) -> dict[str, dict[str, float]]:
    """Scores a predictions file (``coco_instances_results.json``) again.

    Args:
        predictions: detections in COCO's result format.
        dataset_name: a registered COCO-format data set.
        tasks: of ``bbox``, ``segm`` and ``keypoints``.
        backend: ``faster`` or ``pycocotools``.
        max_dets: highest-scoring detections per image that count.

    Raises:
        UserError: if a file is missing or broken, or the detections are of other images.
    """
    results = read_json(predictions, "predictions")
    if not isinstance(results, list):
        raise UserError(f"'{predictions}' holds no list of detections in COCO's result format")
    annotations = _read(MetadataCatalog.get(dataset_name).json_file)
    return {task: score(annotations, results, task, backend, max_dets) for task in tasks}


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | None = None
) -> DatasetEvaluator:
    """The evaluator of a COCO-type data set, and of the first one pictures of its first images.

    Args:
        cfg: the whole configuration.
        dataset_name: one of ``cfg.DATASETS.TEST``.
        output_dir: where the predictions are written; None for
            ``OUTPUT_DIR/inference/<dataset_name>``.

    Raises:
        UserError: if the data set is evaluated in another manner than COCO's.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", "coco")
    if kind not in ("coco", "coco_panoptic_seg"):
        raise UserError(
            f"data set '{dataset_name}' is evaluated as '{kind}'; this tool evaluates COCO-type "
            "data sets: register yours with evaluator_type 'coco', or name it by path"
        )
    evaluator = COCOEvaluator(
        dataset_name,
        evaluated_tasks(cfg),
        output_dir=output_dir or os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name),
        backend=cfg.TEST.COCO_BACKEND,
        # what a model may answer with counts; fewer than COCO's 100 cannot be more than these
        max_dets_per_image=max(cfg.TEST.DETECTIONS_PER_IMAGE, COCO_DETECTIONS),
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
    )
    if not cfg.TEST.NUM_VISUALIZATIONS or dataset_name != cfg.DATASETS.TEST[0]:
        return evaluator
    pictures = Path(cfg.OUTPUT_DIR) / "predictions" / dataset_name
    drawings = PredictionImages(dataset_name, cfg.TEST.NUM_VISUALIZATIONS, output_dir=pictures)
    return DatasetEvaluators([evaluator, drawings])


def _subset(annotations: Mapping[str, Any], image_ids: set[int]) -> dict[str, Any]:
    return {
        **annotations,
        "images": [image for image in annotations["images"] if image["id"] in image_ids],
        "annotations": [a for a in annotations["annotations"] if a["image_id"] in image_ids],
    }


def _read(path: str) -> Mapping[str, Any]:
    try:
        return read_annotations(path).content
    except FileNotFoundError:
        raise UserError(f"no annotation file at '{path}'; check the path") from None


def _table(metrics: Mapping[str, float]) -> str:
    cells = [[_shown(value) for value in metrics.values()]]
    return str(tabulate(cells, list(metrics), tablefmt="pipe", disable_numparse=True))


def _class_table(scores: Mapping[str, float]) -> str:
    """AP by class as a text table, three classes per row."""
    cells = [(name, _shown(value)) for name, value in scores.items()]
    columns = min(3, len(cells))
    rows = [sum(cells[start : start + columns], ()) for start in range(0, len(cells), columns)]
    headers = ["class", "AP"] * columns
    return str(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
