"""A detector's static networks around the steps in NumPy: in PyTorch, and from their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from backbones.deployment.runtimes import Runtime
from detection.export.networks import StaticNetwork
from detection.export.postprocess import Detections, Run, detect
from detection.export.postprocess.operators import iou

MOST_BOXES = 100
SAME = 0.9
"""IoU from which two boxes of one class are the same detection."""


def run_modules(networks: Mapping[str, StaticNetwork]) -> Run:
    """Runs the networks in PyTorch."""

    @torch.no_grad()
    def run(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        network = networks[name]
        found = network.module(torch.from_numpy(arrays[network.input]))
        return {key: tensor.numpy() for key, tensor in zip(network.outputs, found, strict=True)}

    return run


def run_files(runtimes: Mapping[str, Runtime]) -> Run:
    """Runs the networks from their files, by the names of a contract."""
    return lambda name, arrays: runtimes[name].run(arrays)


def recorded_inputs(
    networks: Mapping[str, StaticNetwork], detector: Mapping[str, Any], images: Sequence[np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """What every network is given on images; empty for a head of which nothing was asked.

    Of the boxes of an image the first `MOST_BOXES` are kept: a thousand take 50 MB.
    """
    inputs: dict[str, list[np.ndarray]] = {name: [] for name in networks}
    run = run_modules(networks)

    def recording(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        inputs[name] += [array[:MOST_BOXES] for array in arrays.values()]
        return run(name, arrays)

    for image in images:
        detect(image, detector, recording)
    return inputs


def found_again(expected: Detections, found: Detections) -> int:
    """How many detections are found again: one of their class is at their place (`SAME`)."""
    count = 0
    for box, kind in zip(expected.boxes, expected.classes, strict=True):
        others = found.boxes[found.classes == kind]
        count += bool((iou(box, others) >= SAME).any())
    return count
