"""The final training of a fixed network on classification images."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from detectron2.utils import comm

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.exported import save_backbone
from backbones.factory import load_architecture
from backbones.network import Classifier, build_classifier
from backbones.published import load_state
from backbones.weights import load_weights
from detection.deployment import Deployment, predicted_runtime, runtime_table
from detection.engine.results import write_results
from detection.engine.run_folder import evaluation_config
from search.classification.data import count_classes
from search.classification.trainer import ClassificationTrainer

logger = logging.getLogger(__name__)


class ClassifierTrainer(ClassificationTrainer):
    """Trains the network ``MODEL.SPNAS.ARCH``, from ``MODEL.WEIGHTS`` where given.

    A classifier of another class count in the weights is left out.
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
        super().__init__(cfg, model)

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
