"""The final training of a fixed network on classification images."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from detectron2.utils import comm

from backbones.errors import UserError
from backbones.factory import load_architecture
from backbones.latency import LatencyTable
from backbones.network import build_classifier
from backbones.published import load_state
from backbones.weights import load_weights
from detection.deployment import predicted_runtime
from search.data import count_classes
from search.export import save_backbone
from search.stage import ClassificationTrainer

logger = logging.getLogger(__name__)


class ClassifierTrainer(ClassificationTrainer):
    """Trains the network ``MODEL.SPNAS.ARCH``, from ``MODEL.WEIGHTS`` where given.

    A classifier of another class count in the weights is left out.
    """

    def __init__(self, cfg: CfgNode) -> None:
        architecture = load_architecture(cfg.MODEL.SPNAS.ARCH).scaled(cfg.MODEL.SPNAS.WIDTH_MULT)
        self.architecture = architecture
        model = build_classifier(architecture, count_classes(cfg), cfg.CLASSIFICATION.DROP_RATE)
        if cfg.MODEL.WEIGHTS:
            state = load_state(cfg.MODEL.WEIGHTS, architecture)
            classifier = state.get("classifier.weight")
            other = classifier is None or classifier.shape != model.classifier.weight.shape
            if other:
                logger.warning(
                    "'%s' has no classifier of %d classes: it starts afresh",
                    cfg.MODEL.WEIGHTS,
                    model.num_classes,
                )
            load_weights(model, state, cfg.MODEL.WEIGHTS, ("classifier.",) if other else ())
        super().__init__(cfg, model)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Accuracy; at the end of the training also exports the averaged network."""
        results = super().evaluate()
        if self.complete and comm.is_main_process():
            save_backbone(self.output_dir, self.architecture, self.averaged_model.state_dict())
            logger.info("Wrote architecture.json and backbone.pth to %s", self.output_dir)
        self.write_results({"classification": self._summary(results["val"])})
        return results

    def evaluate_only(self) -> dict[str, dict[str, float]]:
        """Accuracy of ``MODEL.WEIGHTS`` as they are.

        Raises:
            UserError: if there are none.
        """
        if not self.cfg.MODEL.WEIGHTS:
            raise UserError("--eval-only needs MODEL.WEIGHTS: the backbone.pth to evaluate")
        results = super().evaluate()
        self.write_results({"classification": self._summary(results["val"])})
        return results

    def _summary(self, scores: dict[str, float]) -> dict[str, object]:
        summary: dict[str, object] = {
            "architecture": self.architecture.name,
            "params": sum(p.numel() for p in self.unwrapped.parameters()),
            "val": scores,
        }
        if self.cfg.MODEL.SPNAS.LATENCY_TABLE:
            table = LatencyTable.load(self.cfg.MODEL.SPNAS.LATENCY_TABLE)
            summary["predicted_runtime"] = predicted_runtime(self.architecture, table)
            summary["unit"] = table.unit
        return summary
