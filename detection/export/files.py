"""A whole detector as files: its static networks, their contract, and the rest in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from backbones.deployment.checking import compare
from backbones.deployment.contract import Contract, Network, contract_path
from backbones.deployment.exporting import (
    check_request,
    checks_of,
    package_versions,
    said_of_converters,
)
from backbones.deployment.folding import folded
from backbones.deployment.formats import Format, Precision
from backbones.deployment.formats.litert import to_litert
from backbones.deployment.formats.onnx import OPSET, to_onnx
from backbones.deployment.formats.torch_export import to_torch_export
from backbones.deployment.quantisation import quantised
from backbones.deployment.runtimes import Runtime, open_model
from backbones.errors import UserError
from backbones.files import write_atomic
from detection.export import postprocess
from detection.export.contracts import (
    architecture_of,
    canvas_of,
    describe_file,
    divisor_of,
    image_rule,
    preprocessing_of,
)
from detection.export.networks import StaticNetwork, describe, static_networks
from detection.export.postprocess import detect
from detection.export.running import (
    MOST_BOXES,
    found_again,
    recorded_inputs,
    run_files,
    run_modules,
)

BATCHES = {"boxes": MOST_BOXES, "masks": 10}
"""Boxes that the heads take at once in a format without dynamic sizes."""

COMPARED = 4
"""Inputs of every network that its file is compared with PyTorch on."""


def export_detector(
    cfg: CfgNode,
    model: nn.Module,
    output: Path,
    kind: Format,
    images: Sequence[np.ndarray],
    *,
    precision: Precision = "fp32",
    calibration: Sequence[np.ndarray] = (),
    labels: Sequence[str] = (),
    input_size: tuple[int, int] | None = None,
    masks: bool = True,
) -> Contract:
    """Writes a detector for deployment, once its files agree with PyTorch.

    Args:
        cfg: the detector's configuration, for the size and the colours of its images.
        model: the detector with its weights; it goes to the CPU, and into eval mode.
        output: ``NAME.onnx``, ``NAME.tflite`` or ``NAME.pt2``: the network ``image``. The heads lie
            beside it as ``NAME.boxes.*`` and ``NAME.masks.*``, the contract as ``NAME.json``, and
            what is done in NumPy as ``postprocess/``.
        kind: format of the files.
        images: (H, W, 3) uint8, RGB: the files are compared with PyTorch on them.
        precision: of the files.
        calibration: images for int8.
        labels: names of the classes.
        input_size: height and width of the images of a LiteRT file; by default the square that
            holds every image that is resized as the configuration says.
        masks: with the mask head, if there is one.

    Returns:
        The contract.

    Raises:
        UserError: if the detector cannot be split into static networks, the format or precision
            cannot hold one, or a file differs too much from PyTorch.
    """
    check_request(output, kind, precision)
    assert images
    networks = static_networks(model.cpu().eval(), masks)
    divisor = divisor_of(model)
    detector = describe(model, networks)
    canvas = canvas_of(cfg, divisor, input_size) if kind == "litert" else None
    detector["image"] = image_rule(cfg, divisor, canvas)
    for name, batch in BATCHES.items():
        if name in detector:
            detector[name]["batch"] = batch if kind == "litert" else None
    inputs = recorded_inputs(networks, detector, images)
    examples = recorded_inputs(networks, detector, calibration) if calibration else inputs
    files: dict[str, bytes] = {}
    runtimes: dict[str, Runtime] = {}
    described: dict[str, Network] = {}
    checks: dict[str, dict[str, Any]] = {}
    for name, network in networks.items():
        if not inputs[name] or not examples[name]:
            raise UserError(
                f"the detector finds nothing on the images given, so that its head of {name} "
                "cannot be tried; name photos of the objects that it knows: --images FOLDER"
                f"{' --calibration FOLDER' if calibration else ''}"
            )
        file = files[name] = converted(network, kind, precision, examples[name], divisor)
        runtime = runtimes[name] = open_model(file, kind)
        entry = describe_file(network, runtime, detector, network_file(output, name))
        runtime.inputs, runtime.outputs = entry.inputs, entry.outputs
        agreement = compare(network.module, runtime, inputs[name][:COMPARED])
        agreement.check(precision, f"the {precision} network '{name}' in {kind} format")
        described[name] = entry
        checks[name] = checks_of(agreement, file, runtime, inputs[name][0])
    expected = [detect(image, detector, run_modules(networks)) for image in images]
    found = [detect(image, detector, run_files(runtimes)) for image in images]
    contract = Contract(
        kind="detector",
        format=kind,
        precision=precision,
        networks=described,
        preprocessing=preprocessing_of(cfg, divisor),
        architecture=architecture_of(model),
        labels=tuple(labels),
        detector=detector,
        opset=OPSET if kind == "onnx" else None,
        checks={
            "networks": checks,
            "images": len(images),
            "detections": sum(len(item.boxes) for item in expected),
            "found_again": sum(map(found_again, expected, found)),
        },
        versions=package_versions(),
    )
    for name, file in files.items():
        write_atomic(output.with_name(network_file(output, name)), file)
    copy_postprocessing(output.parent)
    contract.save(contract_path(output))
    return contract


def converted(
    network: StaticNetwork,
    kind: Format,
    precision: Precision,
    examples: Sequence[np.ndarray],
    divisor: int,
) -> bytes:
    """The file of a network.

    Args:
        network: in PyTorch.
        kind: format of the file.
        precision: of the file.
        examples: inputs, which int8 is calibrated on.
        divisor: of the sides of images.
    """
    with said_of_converters(kind, "detector", "a detector"):
        file = _float_file(network, kind, torch.from_numpy(examples[0]), divisor)
    return quantised(file, kind, precision, [(array,) for array in examples])


def _float_file(network: StaticNetwork, kind: Format, example: Tensor, divisor: int) -> bytes:
    if kind == "litert":
        return to_litert(folded(network.module, [example]), [example])
    images = network.shape is None
    single = images and kind == "torch"  # which would insist on two images or more
    sides = {} if single else {0: "batch" if images else "boxes"}
    if images:
        sides.update({2: "height", 3: "width"})
    # sides of an example are told apart, and none that varies is 1, which exporters take for fixed
    rest = (3, 4 * divisor, 5 * divisor) if images else example.shape[1:]
    generator = torch.Generator().manual_seed(0)
    traced = [torch.randn(1 if single else 2, *rest, generator=generator)]
    dynamic = [sides]
    divisor = divisor if images else 1
    module = folded(network.module, traced, dynamic=dynamic, divisor=divisor)
    if kind == "torch":
        return to_torch_export(module, traced, dynamic=dynamic, divisor=divisor)
    return to_onnx(
        module,
        traced,
        input_names=[network.input],
        output_names=network.outputs,
        dynamic=dynamic,
        divisor=divisor,
    )


def network_file(output: Path, name: str) -> str:
    """Name of a network's file: ``NAME.onnx`` of ``image``, ``NAME.boxes.onnx`` of ``boxes``."""
    return output.name if name == "image" else f"{output.stem}.{name}{output.suffix}"


def copy_postprocessing(folder: Path) -> None:
    """Writes ``postprocess/`` into a folder, so that the files there need nothing but NumPy."""
    for file in sorted(Path(postprocess.__file__).parent.glob("*.py")):
        write_atomic(folder / "postprocess" / file.name, file.read_bytes())
