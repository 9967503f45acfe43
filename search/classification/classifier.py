"""The final training of a fixed network on classification images."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.exported import save_backbone
from backbones.factory import load_architecture
from backbones.network import Classifier, build_classifier
from backbones.published import load_state
from backbones.trained import named_architecture, named_weights
from backbones.weights import load_weights
from detection.deployment import Deployment, predicted_runtime, runtime_table
from detection.engine.results import write_results
from detection.engine.run_folder import evaluation_config
from search.classification.data import count_classes
from search.classification.trainer import ClassificationTrainer

logger = logging.getLogger(__name__)


class ClassifierTrainer(ClassificationTrainer):
    """Trains the network ``MODEL.SPNAS.ARCH``, from ``MODEL.WEIGHTS`` where given.

    A classifier of another class count in the weights is left out. With ``CLASSIFICATION.TEACHER``
    the network also learns what that one says of every image (Hinton et al., arXiv 1503.02531).
    """

    part = "classification"

    def __init__(self, cfg: CfgNode) -> None:
        architecture = load_architecture(cfg.MODEL.SPNAS.ARCH).scaled(cfg.MODEL.SPNAS.WIDTH_MULT)
        self.architecture = architecture
        self.table = runtime_table(cfg.MODEL.SPNAS.LATENCY_TABLE, architecture)
        model = build_classifier(architecture, count_classes(cfg), cfg.CLASSIFICATION.DROP_RATE)
        self.whole_weights = bool(cfg.MODEL.WEIGHTS) and _load(
            model, cfg.MODEL.WEIGHTS, architecture
        )
        if not cfg.MODEL.WEIGHTS:
            logger.info("MODEL.WEIGHTS is empty: training starts from random weights")
        self._teacher = _teacher(cfg, architecture, model.num_classes)
        self._taught: Tensor | None = None
        super().__init__(cfg, model)

    def backward(self, images: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """As any training; the teacher sees the same images."""
        if self._teacher:
            with torch.no_grad():
                self._taught = self._teacher(images).float()
        return super().backward(images, targets)

    def losses(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The cross entropy with the labels, and with the teacher's probabilities."""
        losses = super().losses(logits, targets)
        if self._taught is None:
            return losses
        share = self.cfg.CLASSIFICATION.TEACHER_WEIGHT
        taught = F.cross_entropy(logits, self._taught.softmax(1))
        return {
            **{name: (1 - share) * loss for name, loss in losses.items()},
            "loss_teacher": share * taught,
        }

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Accuracy; at the end of the training also exports the averaged network."""
        results = super().evaluate()
        if self.complete:
            if comm.is_main_process():
                save_backbone(self.output_dir, self.architecture, self.averaged_model.state_dict())
                logger.info("Wrote architecture.json and backbone.pth to %s", self.output_dir)
            self.write_results({self.part: self._summary(results["val"])})
        return results

    def evaluate_only(self) -> dict[str, dict[str, float]]:
        """Accuracy of ``MODEL.WEIGHTS`` as they are, into ``OUTPUT_DIR/evaluation``.

        Raises:
            UserError: if there are none, or they have no classifier of the data's class count.
        """
        if not self.cfg.MODEL.WEIGHTS:
            raise UserError("--eval-only needs MODEL.WEIGHTS: the backbone.pth to evaluate")
        if not self.whole_weights:
            raise UserError(
                f"--eval-only: '{self.cfg.MODEL.WEIGHTS}' has no classifier of "
                f"{len(self.train_data.classes)} classes, as CLASSIFICATION.DATASET has; name the "
                "data set that it was trained on, or train on this one first"
            )
        results = super().evaluate()
        if comm.is_main_process():
            folder = evaluation_config(self.cfg).OUTPUT_DIR
            write_results(folder, {self.part: self._summary(results["val"])})
        return results

    def _summary(self, scores: dict[str, float]) -> dict[str, object]:
        summary: dict[str, object] = {
            "architecture": self.architecture.name,
            "params": sum(p.numel() for p in self.unwrapped.parameters()),
            "val": scores,
        }
        if self.table:
            summary["predicted_runtime"] = predicted_runtime(self.architecture, self.table)
            summary["unit"] = self.table.unit
            summary["latency_table"] = self.table.name
            summary["runtime_of"] = Deployment.of(self.table).description
        return summary


def _teacher(cfg: CfgNode, student: Architecture, classes: int) -> Classifier | None:
    """The network that ``CLASSIFICATION.TEACHER`` names, in eval mode; None where it is empty.

    Raises:
        UserError: if it is none for the same images and classes, or its share is out of range.
    """
    node, key = cfg.CLASSIFICATION, "CLASSIFICATION.TEACHER"
    if not node.TEACHER:
        return None
    if not 0 < node.TEACHER_WEIGHT <= 1:
        raise UserError(f"{key}_WEIGHT is {node.TEACHER_WEIGHT:g}; expected a part in (0, 1]")
    architecture = named_architecture(node.TEACHER)
    if not student.input.normalises_as(architecture.input.mean, architecture.input.std):
        raise UserError(
            f"{key} is '{node.TEACHER}', which expects images normalised by "
            f"{architecture.input.mean} and {architecture.input.std}, and the network that it "
            f"teaches by {student.input.mean} and {student.input.std}; name another teacher"
        )
    weights = named_weights(node.TEACHER, key)
    teacher = build_classifier(architecture, classes)
    load_weights(teacher, load_state(weights, architecture), weights)
    logger.info("'%s' teaches, weights '%s'", architecture.name, weights)
    return teacher.requires_grad_(False).eval().to(cfg.MODEL.DEVICE)


def _load(model: Classifier, path: str, architecture: Architecture) -> bool:
    """Loads the weights in ``path``; returns whether the classifier is among them."""
    state = load_state(path, architecture)
    classifier = state.get("classifier.weight")
    whole = classifier is not None and classifier.shape == model.classifier.weight.shape
    if not whole:
        logger.warning(
            "'%s' has no classifier of %d classes: it starts afresh", path, model.num_classes
        )
    load_weights(model, state, path, () if whole else ("classifier.",))
    loaded = [name for name in state if whole or not name.startswith("classifier.")]
    logger.info("Loaded %d tensors from %s", len(loaded), path)
    return whole
