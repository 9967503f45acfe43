"""The search on a detector: its losses + λ·log(runtime), and the backbone that it ends with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from backbones.architecture import Architecture
from backbones.errors import UserError, first_of
from backbones.exported import ARCHITECTURE_FILE, DETECTOR_FILE, save_backbone
from backbones.states import model_state
from backbones.weights import check_finite, load_weights, read_checkpoint, save_checkpoint
from detection.checkpointing import backbone_prefix
from detection.engine.compiled import eagerly
from detection.engine.random_state import seeded
from detection.engine.results import results_part, write_results
from detection.engine.trainer import unwrap_ddp
from detection.modeling.backbone import SPNASBackbone
from detection.optimizer import set_apart
from detection.trainer import DetectionTrainer, FinalReport, report
from search.classification.calibration import estimate_statistics
from search.profiling.counting import COUNTS
from search.report.decision_pictures import DecisionPictures
from search.runs.build import build_runtime_model, build_tradeoff, check_targets
from search.runs.detector_backbone import (
    FIXED_BUILDERS,
    SupernetBackbone,
    backbone_in,
    backbone_state,
    fixed_backbone,
    image_tensors,
)
from search.runs.detector_judge import DetectorJudge
from search.runs.formulations.registry import detector_formulation
from search.runs.found import described, found_row, search_results
from search.runs.layers_file import write_layers
from search.runs.runtime_loss import (
    check_decisions,
    search_note,
    seed_draws,
    unmoved_if_skipped,
)
from search.space import Choice
from search.start.refitting import refit
from search.start.remapping import start_supernet
from search.start.seed import reference_choices, seed_of
from search.supernets.single_path import Supernet

logger = logging.getLogger(__name__)

_LOG_PERIOD = 20


class DetectorSearchTrainer(DetectionTrainer):
    """Trains a detector and the decisions of its supernet together, and exports the backbone found.

    The search starts undecided, whatever ``MODEL.WEIGHTS`` had decided: a supernet trained on
    classification warms the weights up.

    Args:
        cfg: the configuration, with the keys of ``add_search_config``; ``MODEL.BACKBONE.NAME`` is
            one of ``FIXED_BUILDERS``.

    Raises:
        UserError: for a mistake in the configuration.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.tradeoff = build_tradeoff(cfg)
        self.formulation = detector_formulation(cfg)
        super().__init__(cfg)
        self.detector = unwrap_ddp(self.model)
        self.supernet = supernet_backbone(self.detector).supernet
        self.space = self.supernet.space
        self.runtime_model = build_runtime_model(cfg, self.space).to(cfg.MODEL.DEVICE)
        check_targets(cfg, self.runtime_model)
        self.checkpointer.add_checkpointable("tradeoff", self.tradeoff)
        self.seed = seed_of(cfg)
        self.judge = DetectorJudge(cfg, self.detector, self.supernet, self.reference)
        self.formulation.check(self)
        self.detector.register_forward_hook(self._with_runtime)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """The detector's optimizer, with the thresholds in a group of their own (Eq. 9)."""
        optimizer = super().build_optimizer(cfg, model)
        thresholds = supernet_backbone(unwrap_ddp(model)).supernet.decision_parameters()
        set_apart(optimizer, thresholds)
        lr = cfg.SOLVER.BASE_LR * cfg.SEARCH.THRESHOLD_LR_MULT
        optimizer.add_param_group({"params": thresholds, "lr": lr, "weight_decay": 0.0})
        return optimizer

    def build_hooks(self) -> list[HookBase]:
        """Those of a detector, but what is evaluated and reported is the network found."""
        kept = [
            hook
            for hook in super().build_hooks()
            if not isinstance(hook, hooks.EvalHook | FinalReport)
        ]
        return [*kept, hooks.EvalHook(0, eagerly(self.export)), DecisionPictures()]

    @property
    def progress(self) -> float:
        """Part of the search that is done, from 0 to 1, without steps that were skipped."""
        return float((self.iter - self.scaler.skipped) / self.max_iter)

    @property
    def reference(self) -> Sequence[Choice]:
        """The choices of the network that the search started from, or of the largest one."""
        return reference_choices(self.seed, self.space)

    def resume_or_load(self, resume: bool = True) -> None:
        """As for a detector; a new search then starts undecided on the weights loaded.

        With ``SEARCH.START``, it starts from the backbone named there; of a detector's weights,
        with its pyramid and heads.
        """
        if self.seed and not (resume and self.checkpointer.has_checkpoint()):
            start_supernet(self.supernet, self.seed)
            load_heads(self.detector, self.seed.weights)
            return
        super().resume_or_load(resume)
        if self.start_iter == 0:
            self.supernet.reset_thresholds()

    def progress_note(self) -> str:
        """Runtime, budget and λ beside the losses."""
        return search_note(self.tradeoff, self.runtime_model.table.unit)

    def run_step(self) -> None:
        """One step over weights and decisions."""
        seed_draws(self.supernet, self.cfg.SEED, self.iter)
        with self.formulation.step(self), unmoved_if_skipped(self.tradeoff, self.scaler):
            super().run_step()

    def after_step(self) -> None:
        """Checks and logs the decisions of every layer, together with the other metrics."""
        if (self.iter + 1) % _LOG_PERIOD == 0 or self.iter + 1 == self.max_iter:
            check_decisions(self.supernet)
            self.formulation.log(self)
        super().after_step()

    def settled(self) -> bool:
        """Whether the network found is exported, and its detector evaluated."""
        return (
            super().settled()
            and results_part(self.folder, "search") is not None
            and Path(self.folder, ARCHITECTURE_FILE).exists()
        )

    def choices(self, target: float) -> list[Choice]:
        """The network that the search would end with now.

        Args:
            target: runtime to select at; 0 takes the supernet's own decisions.
        """
        return self.formulation.choose(self, target, self.judge)

    def export(self) -> dict[str, Any]:
        """Writes the network found with its detector's AP, and those of ``SEARCH.FAMILY``.

        Returns:
            What :meth:`test` returns; nothing without a test set.
        """
        node, output = self.cfg.SEARCH, Path(self.cfg.OUTPUT_DIR)
        found = self.exported(choices := self.choices(node.TARGET), output)
        write_layers(output, self.runtime_model, choices, self.supernet)
        family = [self.exported(self.choices(t), output / "family" / f"{t:g}") for t in node.FAMILY]
        start = [self.exported(self.seed.choices, output / "start")] if self.seed else []

        def rows(networks: Sequence[tuple[Architecture, Any, Any]]) -> list[dict[str, Any]]:
            return [found_row(self.space, architecture) for architecture, _, _ in networks]

        further = {"family": rows(family), "start": rows(start)}
        results = search_results(self.runtime_model, node, rows([found])[0], further)
        if comm.is_main_process():
            write_results(output, {"search": results})
        _, detector, cfg = found
        scores = self.test(cfg, detector) if cfg.DATASETS.TEST else {}
        if scores and comm.is_main_process():
            report(cfg, detector, scores, self.wandb_writer)
        return scores

    def exported(
        self, choices: Sequence[Choice], folder: Path
    ) -> tuple[Architecture, nn.Module, CfgNode]:
        """Writes a network into a folder, and the detector that it is the backbone of.

        Pyramid and heads of its detector are the supernet's. With ``SEARCH.REFIT_BATCHES``
        layers are fitted to the start's (:mod:`search.start.refitting`). The batch-norm statistics
        are estimated anew: the supernet's are a mixture over all that it decided on the way.

        Args:
            choices: one per searchable layer.
            folder: for ``architecture.json``, ``backbone.pth`` and ``detector.pth``.

        Returns:
            The architecture, its detector in eval mode, and the detector's configuration.
        """
        data = ", ".join(self.cfg.DATASETS.TRAIN)
        architecture = described(self.cfg, self.runtime_model, choices, self.finished, data)
        if comm.is_main_process():
            folder.mkdir(parents=True, exist_ok=True)
            architecture.save(folder / ARCHITECTURE_FILE)
        comm.synchronize()
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.MODEL.BACKBONE.NAME = FIXED_BUILDERS[cfg.MODEL.BACKBONE.NAME]
        cfg.MODEL.SPNAS.ARCH = str(folder / ARCHITECTURE_FILE)
        cfg.MODEL.SPNAS.LATENCY_TABLE = (
            "" if cfg.SEARCH.LATENCY_TABLE in COUNTS else cfg.SEARCH.LATENCY_TABLE
        )
        detector = DetectionTrainer.build_model(cfg)
        load_weights(detector, detector_state(self.detector, choices), "the supernet")
        if count := cfg.SEARCH.REFIT_BATCHES:
            start = fixed_backbone(cfg, self.supernet, self.reference)
            refit_detector(detector, start, cfg, count)
        calibrate_detector(detector, cfg, cfg.SEARCH.CALIBRATION_BATCHES)
        if comm.is_main_process():
            save_backbone(folder, architecture, backbone_in(detector).state_dict())
            save_checkpoint(folder / DETECTOR_FILE, {"model": detector.state_dict()})
            logger.info("Wrote architecture.json, backbone.pth and %s to %s", DETECTOR_FILE, folder)
        return architecture, detector, cfg

    def _with_runtime(
        self, detector: nn.Module, inputs: Any, losses: dict[str, Tensor]
    ) -> dict[str, Tensor] | None:
        if not detector.training:
            return None
        # a runtime in half precision would be off by as much as λ answers to
        with torch.autocast(torch.device(self.cfg.MODEL.DEVICE).type, enabled=False):
            return {**losses, **self.formulation.losses(self)}


def supernet_backbone(detector: nn.Module) -> SupernetBackbone:
    """The supernet in a detector.

    Raises:
        UserError: if it has none.
    """
    for module in detector.modules():
        if isinstance(module, SupernetBackbone):
            return module
    raise UserError(
        "the detector has no supernet; set MODEL.BACKBONE.NAME to one of "
        f"{', '.join(FIXED_BUILDERS)}"
    )


def detector_state(detector: nn.Module, choices: Sequence[Choice]) -> dict[str, Tensor]:
    """The weights of the detector with one network of the space as its backbone.

    Args:
        detector: of the supernet.
        choices: one per searchable layer.
    """
    prefix = backbone_prefix(detector) or ""
    supernet: Supernet = supernet_backbone(detector).supernet
    state = {k: v for k, v in detector.state_dict().items() if not k.startswith(prefix)}
    own = backbone_state(supernet, choices)
    return {**state, **{f"{prefix}{name}": value for name, value in own.items()}}


def load_heads(detector: nn.Module, weights: str) -> None:
    """Pyramid and heads of a detector's checkpoint, where they fit; a backbone's has none.

    Args:
        detector: with another backbone than the checkpoint's.
        weights: address or file.
    """
    if not Path(weights).is_file():
        return
    prefix = backbone_prefix(detector) or ""
    state = model_state(read_checkpoint(weights), weights)
    expected = {k: v for k, v in detector.state_dict().items() if not k.startswith(prefix)}
    fitting = {k: v for k, v in state.items() if k in expected and v.shape == expected[k].shape}
    if not fitting:
        return
    check_finite(fitting, weights)
    detector.load_state_dict(fitting, strict=False)
    left = sorted(set(expected) - set(fitting))
    logger.info("Loaded %d tensors of pyramid and heads from '%s'", len(fitting), weights)
    if left:
        logger.warning("'%s' has none that fit %s: they start afresh", weights, first_of(left))


def refit_detector(detector: Any, start: SPNASBackbone, cfg: CfgNode, batches: int) -> None:
    """Fits layers of a detector's backbone to the start's (:mod:`search.start.refitting`).

    Args:
        detector: its statistics are to be estimated afterwards.
        start: the backbone to fit to, of the same space.
        cfg: of the training loader.
        batches: training batches to fit on; augmentation depends on configuration and seed alone.
    """
    with seeded(cfg.SEED):
        loader = DetectionTrainer.build_train_loader(cfg)
        inputs = list(image_tensors(detector, islice(loader, batches * cfg.SOLVER.ACCUMULATE)))
    refit(backbone_in(detector), start, inputs)


def calibrate_detector(detector: nn.Module, cfg: CfgNode, batches: int) -> None:
    """Estimates a detector's batch-norm statistics on training images; leaves it in eval mode.

    What is drawn, of augmentation and of proposals, depends on configuration and seed alone.

    Args:
        detector: its statistics are changed.
        cfg: of the training loader.
        batches: to estimate on; 0 leaves the statistics as they are.
    """
    if batches:
        # the heads log while they train
        with seeded(cfg.SEED), EventStorage():
            loader = DetectionTrainer.build_train_loader(cfg)
            estimate_statistics(detector, loader, batches * cfg.SOLVER.ACCUMULATE)
    detector.eval()
