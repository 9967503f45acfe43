"""What the networks are searched and fine-tuned on: classification images, or a detector's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE, BACKBONE_FILE, DETECTOR_FILE, save_backbone
from backbones.files import read_json
from backbones.network import build_classifier
from detection.trainer import DetectionTrainer
from search.classification.calibration import calibrated
from search.classification.classifier import ClassifierTrainer
from search.runs.classification import SearchTrainer
from search.runs.detector import DetectorSearchTrainer
from search.runs.detector_backbone import searches_detector
from search.space import Choice
from search.start.narrowing import narrow_classifier
from search.studies.trials import trial_config

_TASKS = {"box": "bbox", "mask": "segm"}
_FIGURES = ("AP", "APs", "APm", "APl")

Trainer = SearchTrainer | DetectorSearchTrainer


class Ground(Protocol):
    """Trains supernets, and fine-tunes networks that were cut out of them."""

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores, the first of which networks are compared by."""

    def trainer(self, cfg: CfgNode) -> Trainer:
        """Of a supernet."""

    def cut(self, trainer: Any, choices: Sequence[Choice], folder: Path) -> None:
        """Writes one network with its slice of the weights."""

    def narrow(self, trainer: Any, width_mult: float, folder: Path) -> None:
        """Writes the adapted start with a part of its channels, the most important ones.

        Raises:
            UserError: if this ground does not.
        """

    def fine_tuned(self, cfg: CfgNode, folder: Path) -> dict[str, float]:
        """Scores of the network in a folder after its training."""


def ground_of(cfg: CfgNode) -> Ground:
    """By what a search's configuration searches on."""
    return DetectorGround() if searches_detector(cfg) else ClassifierGround()


@dataclass(frozen=True)
class ClassifierGround:
    """Cross entropy and top-1."""

    scores = ("top1", "loss")

    def trainer(self, cfg: CfgNode) -> SearchTrainer:
        """Of a supernet."""
        return SearchTrainer(cfg)

    def cut(self, trainer: SearchTrainer, choices: Sequence[Choice], folder: Path) -> None:
        """Writes architecture and backbone, the classifier with it."""
        architecture = trainer.networks.described(choices, trainer.finished)
        network = trainer.networks.calibrated(choices, trainer.cfg.SEARCH.CALIBRATION_BATCHES)
        save_backbone(folder, architecture, network.state_dict())

    def narrow(self, trainer: SearchTrainer, width_mult: float, folder: Path) -> None:
        """Writes architecture and backbone, the classifier with it."""
        networks, cfg = trainer.networks, trainer.cfg
        batches = cfg.SEARCH.CALIBRATION_BATCHES
        start = networks.calibrated(trainer.reference, batches).state_dict()
        whole = networks.described(trainer.reference, trainer.finished)
        architecture, state = narrow_classifier(whole, start, width_mult, "the supernet")
        network = build_classifier(architecture, cfg.CLASSIFICATION.NUM_CLASSES)
        network.load_state_dict(state)
        found = calibrated(network, cfg, networks.train_data, batches)
        save_backbone(folder, architecture, found.state_dict())

    def fine_tuned(self, cfg: CfgNode, folder: Path) -> dict[str, float]:
        """Top-1 in percent, and cross entropy."""
        options = ("MODEL.SPNAS.ARCH", str(folder / ARCHITECTURE_FILE))
        weights = ("MODEL.WEIGHTS", str(folder / BACKBONE_FILE))
        cfg = trial_config(cfg, cfg.SEED, folder / "tuned", (*options, *weights))
        seed_all_rng(cfg.SEED)
        trainer = ClassifierTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        found = read_json(folder / "tuned/results.json", "results")["classification"]["val"]
        return {name: found[name] for name in self.scores}


@dataclass(frozen=True)
class DetectorGround:
    """A detector's losses and its AP of boxes and masks."""

    scores = tuple(f"{task}_{figure}" for task in _TASKS for figure in _FIGURES)

    def trainer(self, cfg: CfgNode) -> DetectorSearchTrainer:
        """Of a supernet."""
        return DetectorSearchTrainer(cfg)

    def cut(self, trainer: DetectorSearchTrainer, choices: Sequence[Choice], folder: Path) -> None:
        """Writes architecture, backbone and detector."""
        trainer.exported(choices, folder)

    def narrow(self, trainer: DetectorSearchTrainer, width_mult: float, folder: Path) -> None:
        """Raises a UserError: the pyramid of the supernet reads all of its channels."""
        raise UserError("a detector's start is not narrowed here")

    def fine_tuned(self, cfg: CfgNode, folder: Path) -> dict[str, float]:
        """AP in percent, over all sizes and of small, medium and large objects."""
        options = ("MODEL.SPNAS.ARCH", str(folder / ARCHITECTURE_FILE))
        weights = ("MODEL.WEIGHTS", str(folder / DETECTOR_FILE))
        cfg = trial_config(cfg, cfg.SEED, folder / "tuned", (*options, *weights))
        seed_all_rng(cfg.SEED)
        trainer = DetectionTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        results = read_json(folder / "tuned/results.json", "results")["detection"]["scores"]
        (found,) = results.values()
        return {
            f"{task}_{figure}": found[key][figure]
            for task, key in _TASKS.items()
            for figure in _FIGURES
        }
