"""One export of a whole detector, and its AP before and after."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from tabulate import tabulate

from backbones.deployment.contract import Contract, contract_path
from backbones.errors import UserError
from detection.data.checks import load_records
from detection.data.image_files import read_image
from detection.data.resolve import resolve_data
from detection.engine.results import to_json
from detection.export.files import export_detector
from detection.modeling.meta_arch import wants_masks
from detection.prediction.predictor import (
    CheckpointDetector,
    ExportedDetector,
    SplitDetector,
    load_detector,
)
from detection.prediction.results import CocoResults, read_truth
from search.deployment.images import photos_in, sample_photos, spread
from search.deployment.sources import Source

MOST_COMPARED = 10
"""Images that the files are compared with PyTorch on."""

MOST_CALIBRATED = 50
"""Images that int8 is calibrated on."""

Detector = CheckpointDetector | ExportedDetector | SplitDetector

_log = logging.getLogger(__name__)


def export_whole(source: Source, args: argparse.Namespace) -> Contract:
    """Exports the detector that ``tools/export_model.py`` was asked for.

    Raises:
        UserError: for whatever the user can mend; nothing is written then.
    """
    if source.cfg is None or not source.is_detector:
        raise UserError(
            "--kind detector needs a detector; name the folder of its run, or a checkpoint and "
            "--config-file configs/detection/…"
        )
    cfg = source.cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", source.weights
    cfg.freeze()
    if args.predict == "masks" and not wants_masks(cfg):
        raise UserError(
            f"--predict is masks, but '{source.weights}' is of a model without a mask head "
            "(MODEL.MASK_ON False); leave it out, or train one with MODEL.MASK_ON True"
        )
    cfg, tests = _with_data(cfg)
    model, labels = load_detector(cfg)
    images, where = _images(args.images, "--images", tests, MOST_COMPARED)
    print(f"Compared on {len(images)} images of {where}")
    calibration: list[np.ndarray] = []
    if args.precision == "int8":
        trained = _records(cfg.DATASETS.TRAIN)
        calibration, where = _images(args.calibration, "--calibration", trained, MOST_CALIBRATED)
        print(f"Calibrated on {len(calibration)} images of {where}")
    masks = args.predict != "boxes"
    contract = export_detector(
        cfg,
        model,
        args.output,
        args.format,
        images,
        precision=args.precision,
        calibration=calibration,
        labels=labels,
        input_size=args.input_size and tuple(args.input_size),
        masks=masks,
    )
    if not tests or not args.evaluate:
        return contract
    shown = [tests[index] for index in spread(len(tests), args.evaluate)]
    truth = read_truth(MetadataCatalog.get(cfg.DATASETS.TEST[0]).json_file)
    detectors: dict[str, Detector] = {
        "pytorch": CheckpointDetector(cfg, model, labels, masks),
        "file": ExportedDetector(args.output),
    }
    if contract.detector["image"].get("canvas"):  # another padding changes what is found
        detectors["padded"] = SplitDetector(model, contract, masks)
    scores = {name: average_precision(found, shown, truth) for name, found in detectors.items()}
    checks = {**contract.checks, "ap": to_json({"images": len(shown), **scores})}
    contract = dataclasses.replace(contract, checks=checks)
    contract.save(contract_path(args.output))
    return contract


def average_precision(
    detector: Detector,
    records: Sequence[Mapping[str, Any]],
    truth: Mapping[str, Any],
) -> dict[str, float]:
    """COCO's AP in percent, of boxes and, where there are any, of masks.

    Args:
        detector: in PyTorch, or exported.
        records: images of a data set in Detectron2's format.
        truth: content of its annotation file.
    """
    results = CocoResults(detector.labels, truth)
    for record in records:
        path = record["file_name"]
        image = read_image(path)
        results.add(Path(path), image, detector.predict(image))
    return {task: found["AP"] for task, found in results.scores().items()}


def _with_data(cfg: CfgNode) -> tuple[CfgNode, list[dict[str, Any]]]:
    """The configuration with what its data decide, and its test images, where they are here."""
    try:
        cfg, _ = resolve_data(cfg, training=False)
    except UserError as error:
        _log.warning("The run's data are not here: %s", error)
        return cfg, []
    return cfg, _records(cfg.DATASETS.TEST)


def _records(names: Sequence[str]) -> list[dict[str, Any]]:
    """Those of the first data set; none, with a warning, if it is not here."""
    try:
        return list(load_records(names[0])) if names else []
    except UserError as error:
        _log.warning("The run's images cannot be read: %s", error)
        return []


def _images(
    folder: str, key: str, records: Sequence[Mapping[str, Any]], most: int
) -> tuple[list[np.ndarray], str]:
    """Images of a folder, else of a data set, else, to compare on, scikit-learn's; and whose."""
    if folder:
        return [read_image(str(path)) for path in photos_in(folder, key, most)], f"'{folder}'"
    if records:
        chosen = [records[index]["file_name"] for index in spread(len(records), most)]
        return [read_image(path) for path in chosen], f"'{Path(chosen[0]).parent}'"
    if key == "--calibration":
        raise UserError(
            "--precision int8 needs images to calibrate on, and this network has no training "
            "images here; name a folder of some with --calibration"
        )
    return [np.asarray(photo) for photo in sample_photos()], "scikit-learn's sample photos"


def summary_of_detector(contract: Contract, output: Path) -> str:
    """What the export of a detector is told of in the end: tables, and the files."""
    checks = contract.checks
    rows = [
        [
            name,
            contract.networks[name].file,
            f"{found['agreement']['largest']:.1e}",
            f"{found['megabytes']:.2f}",
            f"{found['latency']['milliseconds']:.2f}",
            "x".join(map(str, found["latency"]["input"])),
        ]
        for name, found in checks["networks"].items()
    ]
    headers = ["network", "file", "difference", "MB", "ms, 1 thread", "timed on"]
    lines = [
        tabulate(rows, headers, disable_numparse=True),
        f"{checks['found_again']} of PyTorch's {checks['detections']} detections on "
        f"{checks['images']} images are found again",
    ]
    if scores := checks.get("ap"):
        where = {
            "pytorch": "in PyTorch",
            "padded": "in PyTorch with the files' padding",
            "file": f"of the files in {contract.precision}",
        }
        for task in scores["pytorch"]:
            told = ", ".join(
                f"{_shown(scores[name].get(task, 0.0))} {words}"
                for name, words in where.items()
                if name in scores
            )
            lines.append(f"AP of {task} on {scores['images']} images: {told}")
    return "\n".join([*lines, f"Wrote {output} and {contract_path(output)}"])


def _shown(value: float | None) -> str:
    """A figure; there is none where the images have no object."""
    return "–" if value is None else f"{value:.2f}"
