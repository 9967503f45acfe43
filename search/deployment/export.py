"""One export, from the arguments of the command to the file and its contract."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from backbones.deployment.contract import NETWORK, Contract, contract_path
from backbones.deployment.exporting import Exportable, check_request, write_exported
from backbones.deployment.runtimes import Runtime
from backbones.errors import UserError
from backbones.inference.measurement import taken_by_others
from search.deployment.detector import export_whole, summary_of_detector
from search.deployment.images import (
    Array,
    images_of_run,
    images_to_calibrate,
    images_to_compare,
    inputs_of_run,
    top1,
)
from search.deployment.networks import (
    Size,
    exportable_backbone,
    exportable_classifier,
    exportable_pyramid,
)
from search.deployment.sources import Source, find_source

logger = logging.getLogger(__name__)

BUILDERS: Mapping[str, Callable[[Source, Size | None], Exportable]] = {
    "backbone": exportable_backbone,
    "classifier": exportable_classifier,
    "pyramid": exportable_pyramid,
}


def export(args: argparse.Namespace) -> Contract:
    """Exports what ``tools/export_model.py`` was asked for.

    Raises:
        UserError: for whatever the user can mend; nothing is written then.
    """
    check_request(args.output, args.format, args.precision)
    size = _size(args.input_size)
    source = find_source(args.model, args.weights, args.config_file, args.opts)
    if args.kind == "detector":
        return export_whole(source, args)
    if args.predict:
        raise UserError(f"--predict is of detectors; leave it out with --kind {args.kind}")
    network = BUILDERS[args.kind](source, size)
    if args.preprocessing == "inside":
        network = network.with_preprocessing_inside()
    calibration = []
    if args.precision == "int8":
        examples, where = images_to_calibrate(
            source, network.preprocessing, network.size, args.calibration
        )
        print(f"Calibrated on {len(examples)} images of {where}")
        calibration = [(image,) for image in examples]
    images, where = images_to_compare(source, network.preprocessing, network.size, args.images)
    print(f"Compared on {len(images)} images of {where}")
    judge = _judge(source, network, args.evaluate) if args.kind == "classifier" else None
    return write_exported(
        network, args.output, args.format, args.precision, images, calibration, judge
    )


def _size(given: list[int] | None) -> Size | None:
    if given is None:
        return None
    height, width = given
    if min(given) < 32:
        raise UserError(f"--input-size is {height} {width}; expected 32 pixels or more")
    return height, width


def _judge(
    source: Source, network: Exportable, most: int
) -> Callable[[Runtime], Mapping[str, Any]] | None:
    """Finds top-1 of PyTorch and of a file on the run's validation images, where it has some."""
    dataset = images_of_run(source, "val", network.size) if most > 0 else None
    if dataset is None or (network.labels and len(dataset.classes) != len(network.labels)):
        return None

    def judge(runtime: Runtime) -> Mapping[str, Any]:
        assert dataset is not None
        images = list(inputs_of_run(dataset, network.preprocessing, most))
        name, result = runtime.inputs[0].name, runtime.outputs[0].name
        before = top1(lambda image: _logits(network, image), images)
        after = top1(lambda image: runtime.run({name: image})[result], images)
        return {"top1": {"images": len(images), "pytorch": before, "file": after}}

    return judge


@torch.inference_mode()
def _logits(network: Exportable, image: Array) -> Array:
    logits: Array = network.module(torch.from_numpy(image)).numpy()
    return logits


def summary(contract: Contract, output: Path) -> str:
    """What an export is told of in the end: a table, and the files."""
    if contract.kind == "detector":
        return summary_of_detector(contract, output)
    checks = contract.checks
    agreement, latency = checks["agreement"], checks["latency"]
    height, width = latency["input"][2:]
    others = taken_by_others(latency.get("share", 1.0))
    rows = [
        ["largest difference from PyTorch", f"{agreement['largest']:.1e} of the largest output"],
        ["root mean square of differences", f"{agreement['mean']:.1e} of the output's"],
        ["images compared", agreement["images"]],
        ["size", f"{checks['megabytes']:.2f} MB"],
        [
            f"latency at {height}x{width}",
            f"{latency['milliseconds']:.2f} ms ± {100 * latency['spread']:.0f} %, "
            f"{latency['device']}, 1 thread{f'; {others}' if others else ''}",
        ],
    ]
    if top := checks.get("top1"):
        rows.append(["top-1, PyTorch in fp32", f"{top['pytorch']:.2f} % of {top['images']} images"])
        rows.append([f"top-1, this file in {contract.precision}", f"{top['file']:.2f} %"])
    given = contract.networks[NETWORK].inputs[0]
    shape = "x".join("?" if side is None else str(side) for side in given.shape)
    rows.append(["input", f"{shape} {given.dtype} {given.layout}, {given.meaning}"])
    return f"{tabulate(rows)}\nWrote {output} and {contract_path(output)}"
