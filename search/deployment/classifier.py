"""A trained classifier that takes photos as they are: in PyTorch, or exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from backbones.deployment.contract import NETWORK, Contract, contract_path
from backbones.deployment.photos import network_input
from backbones.deployment.runtimes import open_exported
from backbones.errors import UserError
from detection.export.postprocess.operators import softmax
from search.deployment.networks import exportable_classifier
from search.deployment.sources import Source


class TrainedClassifier:
    """A classifier in PyTorch.

    Args:
        source: where it is from.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: if the weights have no classifier, or are of another architecture.
    """

    def __init__(self, source: Source, device: str = "cpu") -> None:
        network = exportable_classifier(source)
        self.labels = network.labels
        self.module = network.module.to(device)
        self._preprocessing = network.preprocessing
        self._device = device

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """Probabilities (K,) of the classes of an image (H, W, 3), uint8, RGB."""
        pixels = network_input(Image.fromarray(image), self._preprocessing)
        logits = self.module(torch.from_numpy(pixels).to(self._device))
        probabilities: np.ndarray = logits.softmax(1)[0].cpu().numpy()
        return probabilities


class ExportedClassifier:
    """A classifier in a file of ONNX, LiteRT or torch.export.

    Args:
        path: of the file, or of its contract.

    Raises:
        UserError: if a file is missing or damaged, or is of no classifier.
    """

    def __init__(self, path: Path) -> None:
        contract = Contract.load(path)
        if contract.kind != "classifier" or NETWORK not in contract.networks:
            raise UserError(
                f"'{contract_path(path)}' is of a {contract.kind}, which finds nothing by itself; "
                "name an exported classifier or detector"
            )
        self.labels = contract.labels
        self._preprocessing = contract.preprocessing
        self._runtime = open_exported(contract_path(path))
        self._input = self._runtime.inputs[0].name

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Probabilities (K,) of the classes of an image (H, W, 3), uint8, RGB."""
        pixels = network_input(Image.fromarray(image), self._preprocessing)
        (logits,) = self._runtime.run({self._input: pixels}).values()
        return softmax(logits)[0]
