"""A trained classifier that takes photos as they are: of a run's folder, or exported."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image
from torch import nn

from backbones.deployment.contract import NETWORK, Contract, contract_path
from backbones.deployment.photos import network_input
from backbones.deployment.runtimes import open_exported
from backbones.errors import UserError
from backbones.exported import BACKBONE_FILE
from backbones.network import build_classifier
from backbones.published import load_state
from backbones.trained import named_architecture
from backbones.weights import load_weights
from detection.engine.config_file import load_config
from detection.export.postprocess.operators import softmax
from search.classification.data import build_transform, open_images, with_input_size
from search.classification.pixels import expected_images, normalised
from search.config import add_search_config

CONFIG_FILE = "config.yaml"

_log = logging.getLogger(__name__)


class FolderClassifier:
    """The classifier that a run left in its folder, as ``architecture.json`` and ``backbone.pth``.

    Images are resized and cropped as the run's ``config.yaml`` says, or else as the architecture.

    Args:
        folder: of the run.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: if the files are missing or do not fit, or the run left no classifier.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        architecture = named_architecture(str(folder))
        weights = str(folder / BACKBONE_FILE)
        state = load_state(weights, architecture)
        if "classifier.weight" not in state:
            raise UserError(
                f"'{weights}' has no classifier but the trunk alone; name the folder of a run of "
                "tools/train_classifier.py"
            )
        model = build_classifier(architecture, len(state["classifier.weight"]))
        load_weights(model, state, weights)
        self.model: nn.Module = model.eval().to(device)
        self._device = device
        self._expected = expected_images(model)
        cfg = _config(folder)
        if not cfg.CLASSIFICATION.INPUT_SIZE:
            cfg, _ = with_input_size(cfg, architecture.input, architecture.name)
        self._transform = build_transform(cfg, False, architecture.input)
        self.labels = _labels(cfg, model.num_classes)

    @torch.no_grad()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """Probabilities (K,) of the classes of an image (H, W, 3), uint8, RGB."""
        pixels = self._transform(Image.fromarray(image))[None].to(self._device)
        probabilities: np.ndarray = (
            self.model(normalised(pixels, self._expected)).softmax(1)[0].cpu().numpy()
        )
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
        (entry,) = self._runtime.inputs
        self._input = entry.name
        height, width = entry.shape[2:] if entry.layout == "NCHW" else entry.shape[1:3]
        self._size = (height, width) if height and width else None

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Probabilities (K,) of the classes of an image (H, W, 3), uint8, RGB."""
        pixels = network_input(Image.fromarray(image), self._preprocessing, self._size)
        (logits,) = self._runtime.run({self._input: pixels}).values()
        return softmax(logits)[0]


def _config(folder: Path) -> CfgNode:
    """Of the run; the defaults where the folder has none, as that of a published model."""
    file = folder / CONFIG_FILE
    name = str(file) if file.is_file() else ""
    return load_config(
        argparse.Namespace(config_file=name, opts=["MODEL.DEVICE", "cpu"]), add_search_config
    )


def _labels(cfg: CfgNode, classes: int) -> Sequence[str]:
    """The class folders of the run's data; none, with a warning, where these are not here."""
    try:
        names = open_images(cfg.CLASSIFICATION.DATASET, "train").classes
    except UserError as error:
        _log.warning("Classes are numbered, as their names are not known: %s", error)
        return ()
    return names if len(names) == classes else ()
