"""Predictions on photos, from a checkpoint, a run's folder or exported files."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backbones.deployment.contract import Contract, contract_path
from backbones.deployment.formats import FORMAT_OF
from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE
from backbones.files import write_atomic, write_json
from detection.engine.unreadable import UNREADABLE_FILE, UnreadableImageError
from detection.export.postprocess import Detections
from detection.prediction.drawing import Drawings, draw_classes, draw_detections
from detection.prediction.images import readable
from detection.prediction.predictor import ExportedDetector, Predictor, open_checkpoint
from detection.prediction.results import CocoResults
from search.deployment.classifier import ExportedClassifier, TrainedClassifier
from search.deployment.sources import find_source

TOP = 5
"""Classes of an image that are written down."""

DRAWN_CONFIDENCE = 0.5
"""Score from which detections are drawn, unless another is asked for."""

_log = logging.getLogger(__name__)


def open_predictor(
    name: str,
    config_file: str = "",
    options: Sequence[str] = (),
    device: str = "",
    masks: bool | None = None,
) -> Predictor:
    """What a path stands for: a trained network that takes photos.

    Args:
        name: an exported file or its contract; or a detector's checkpoint, the folder of a
            detector's or a classifier's run, or another name of
            :func:`search.deployment.sources.find_source`.
        config_file: of a run; by default the one beside its weights.
        options: keys and values in turns, that change the configuration.
        device: ``cpu`` or ``cuda`` for PyTorch; empty for the one of the configuration.
        masks: True insists on a mask head, False leaves it out; None takes what there is.

    Raises:
        UserError: if there is no such file, or none that can be used.
    """
    path = Path(name).expanduser()
    if path.suffix in FORMAT_OF or (path.suffix == ".json" and path.name != ARCHITECTURE_FILE):
        return _opened_export(path, masks)
    source = find_source(name, config_file=config_file, options=options)
    if not source.is_detector:
        _refuse_masks(masks, name, "a classifier")
        return TrainedClassifier(source, device or "cpu")
    assert source.cfg is not None
    cfg = source.cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = source.weights
    cfg.MODEL.DEVICE = device or cfg.MODEL.DEVICE
    cfg.freeze()
    return open_checkpoint(cfg, masks)


def _opened_export(path: Path, masks: bool | None) -> Predictor:
    if not contract_path(path).is_file():
        raise UserError(
            f"there is no contract '{contract_path(path)}' that says what '{path.name}' is; copy "
            "it beside the file, or export it again"
        )
    if Contract.load(path).kind != "detector":
        _refuse_masks(masks, str(path), "no detector")
        return ExportedClassifier(path)
    detector = ExportedDetector(path, masks is not False)
    if masks and not detector.has_masks:
        _refuse_masks(masks, str(path), "a detector without a mask head")
    return detector


def _refuse_masks(masks: bool | None, name: str, what: str) -> None:
    if masks:
        raise UserError(
            f"masks are asked for, but '{name}' is {what}; leave --predict masks out, or name a "
            "Mask R-CNN"
        )


def predict_images(
    predictor: Predictor,
    paths: Sequence[Path],
    output: Path,
    *,
    truth: Any = None,
    confidence: float | None = None,
    drawings: bool = True,
) -> tuple[Sequence[dict[str, Any]], CocoResults | None]:
    """Predicts images, and writes results and drawings into a folder.

    Args:
        predictor: the network.
        paths: of the images.
        output: the folder.
        truth: content of a COCO annotation file of the images; None for none.
        confidence: score from which detections count; None writes all of them, and draws those of
            `DRAWN_CONFIDENCE`.
        drawings: draw them.

    Returns:
        The images that could not be read, with the reasons, and the detections, if these are.

    Raises:
        UserError: if no image can be read, or the annotation file is of others.
    """
    unreadable: list[dict[str, Any]] = []

    def leave_out(error: UnreadableImageError) -> None:
        unreadable.append({"image": error.image, "reason": str(error)})
        _log.warning("%s", error)

    detections = CocoResults(predictor.labels, truth)
    classes: list[dict[str, Any]] = []
    pictures = Drawings(output / "drawings")
    for path, image in readable(paths, leave_out):
        found = predictor.predict(image)
        if isinstance(found, Detections):
            if confidence is not None:
                found = found.chosen(found.scores >= confidence)
            detections.add(path, image, found)
            if drawings:
                shown = DRAWN_CONFIDENCE if confidence is None else confidence
                pictures.write(path, draw_detections(image, found, predictor.labels, shown))
            continue
        if truth is not None:
            raise UserError(
                "--annotations has the objects of a detector, and the model is a classifier; leave "
                "it out"
            )
        best = top_classes(found, predictor.labels)
        classes.append({"file_name": str(path), "classes": best})
        if drawings:
            lines = [f"{item['class']} {100 * item['probability']:.1f} %" for item in best]
            pictures.write(path, draw_classes(image, lines))
    if len(unreadable) == len(paths):
        reason = unreadable[0]["reason"]
        raise UserError(f"none of the {len(paths)} images can be read; the first: {reason}")
    if unreadable:
        write_json(output / UNREADABLE_FILE.replace(".jsonl", ".json"), unreadable)
    if classes:
        write_json(output / "predictions.json", {"images": classes})
        write_atomic(output / "predictions.csv", _csv(classes))
        return unreadable, None
    detections.write(output)
    return unreadable, detections


def top_classes(probabilities: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The likeliest classes, the best first: ``class``, ``index`` from 0 and ``probability``."""
    best = np.argsort(-probabilities, kind="stable")[:TOP]
    return [
        {
            "class": labels[index] if labels else str(index),
            "index": int(index),
            "probability": float(probabilities[index]),
        }
        for index in best
    ]


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each image and class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file_name", "rank", "class", "probability"))
    for row in rows:
        for rank, item in enumerate(row["classes"], start=1):
            writer.writerow((row["file_name"], rank, item["class"], item["probability"]))
    return text.getvalue()
