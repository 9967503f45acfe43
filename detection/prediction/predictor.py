"""What finds something on an image: a detector of a checkpoint, or of exported files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import nn

from backbones.deployment.contract import Contract, contract_path
from backbones.deployment.runtimes import open_exported
from backbones.errors import UserError
from detection.checkpointing import DetectorCheckpointer
from detection.data.trained_classes import trained_classes
from detection.export.contracts import check_complete
from detection.export.networks import static_networks
from detection.export.postprocess import Detections, detect
from detection.export.running import run_files, run_modules
from detection.modeling.meta_arch import wants_masks
from detection.trainer import DetectionTrainer

Prediction: TypeAlias = "Detections | np.ndarray"
"""Objects on the image, or the probabilities (K,) of its classes."""


class Predictor(Protocol):
    """A trained network that takes photos as they are."""

    @property
    def labels(self) -> Sequence[str]:
        """Names of the classes, in their order; empty if they are not known."""

    def predict(self, image: np.ndarray) -> Prediction:
        """What is on an image (H, W, 3), uint8, RGB, upright."""


class CheckpointDetector:
    """A detector of Detectron2's in PyTorch.

    Args:
        cfg: its configuration.
        model: with its weights, in eval mode.
        labels: names of the classes.
        masks: with masks, if it has a mask head.
    """

    def __init__(
        self, cfg: CfgNode, model: nn.Module, labels: Sequence[str] = (), masks: bool = True
    ) -> None:
        self.labels = labels
        self.model = model
        self._masks = masks
        self._reversed = cfg.INPUT.FORMAT == "BGR"
        # as Detectron2's test loader: a shortest side of 0 keeps the size
        self._resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)

    @torch.no_grad()
    def predict(self, image: np.ndarray) -> Detections:
        """The objects on an image (H, W, 3), uint8, RGB."""
        height, width = image.shape[:2]
        pixels = image[:, :, ::-1] if self._reversed else image
        pixels = self._resize.get_transform(pixels).apply_image(pixels)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        (output,) = self.model([{"image": tensor, "height": height, "width": width}])
        found = output["instances"].to("cpu")
        masks = found.pred_masks.numpy() if self._masks and found.has("pred_masks") else None
        return Detections(
            found.pred_boxes.tensor.numpy(), found.scores.numpy(), found.pred_classes.numpy(), masks
        )


class ExportedDetector:
    """A detector in files of ONNX, LiteRT or torch.export.

    Args:
        path: of its file ``image``, or of its contract.
        masks: with masks, if it has a mask head.

    Raises:
        UserError: if a file is missing or damaged, or is of no detector.
    """

    def __init__(self, path: Path, masks: bool = True) -> None:
        contract = Contract.load(path)
        where = str(contract_path(path))
        check_complete(contract.detector, where)
        self.labels = contract.labels
        self.detector = contract.detector
        self._masks = masks
        names = [name for name in contract.networks if masks or name != "masks"]
        missing = {"image", *({"boxes", "masks"} & set(contract.detector))} - set(contract.networks)
        if missing:
            raise UserError(
                f"the contract '{where}' is damaged: it names no file of the network "
                f"'{min(missing)}'; export the detector again"
            )
        self._run = run_files({name: open_exported(path, name) for name in names})

    @property
    def has_masks(self) -> bool:
        """Whether it finds masks."""
        return "masks" in self.detector

    def predict(self, image: np.ndarray) -> Detections:
        """The objects on an image (H, W, 3), uint8, RGB."""
        return detect(image, self.detector, self._run, self._masks)


class SplitDetector:
    """A detector that is split as for files, with its networks in PyTorch.

    It sees images of the size that the files take, padding included.

    Args:
        model: the detector, on the CPU and in eval mode.
        contract: of its files.
        masks: with masks, if it has a mask head.
    """

    def __init__(self, model: nn.Module, contract: Contract, masks: bool = True) -> None:
        self.labels = contract.labels
        self._detector = contract.detector
        self._masks = masks
        self._run = run_modules(static_networks(model, masks))

    def predict(self, image: np.ndarray) -> Detections:
        """The objects on an image (H, W, 3), uint8, RGB."""
        return detect(image, self._detector, self._run, self._masks)


def load_detector(cfg: CfgNode) -> tuple[nn.Module, list[str]]:
    """The detector of a configuration with its weights, in eval mode, and its classes' names.

    Args:
        cfg: the whole configuration; ``MODEL.WEIGHTS`` names the checkpoint.

    Raises:
        UserError: if the weights are missing or do not fit completely.
    """
    if not cfg.MODEL.WEIGHTS:
        raise UserError("MODEL.WEIGHTS is empty; name the checkpoint of a trained detector")
    model = DetectionTrainer.build_model(cfg).eval()
    found = DetectorCheckpointer(model, strict=True).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    classes = found.get("classes")
    return model, [*map(str, classes)] if isinstance(classes, list) else trained_classes(cfg)


def open_checkpoint(cfg: CfgNode, masks: bool | None = None) -> CheckpointDetector:
    """The detector of a configuration and its checkpoint.

    Args:
        cfg: see :func:`load_detector`.
        masks: True insists on a mask head, False leaves it out; None takes what there is.

    Raises:
        UserError: as :func:`load_detector`, and if there is no mask head that is insisted on.
    """
    if masks and not wants_masks(cfg):
        raise UserError(
            f"masks are asked for, but '{cfg.MODEL.WEIGHTS}' is of a model without a mask head "
            "(MODEL.MASK_ON False); ask for boxes, or train one with MODEL.MASK_ON True"
        )
    model, labels = load_detector(cfg)
    return CheckpointDetector(cfg, model, labels, masks is not False)
