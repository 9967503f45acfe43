"""Detectron2's default trainer with checks, exact resume, COCO tables and W&B."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from unittest import mock

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, defaults, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn
from torch.utils.data import DataLoader

from backbones.errors import UserError
from detection.checkpointing import DetectorCheckpointer, mention_backbone_beside
from detection.data.checks import Record, check_test_sets
from detection.data.loader import build_test_loader, build_train_loader, skip_batches
from detection.data.resolve import resolve_data
from detection.data.trained_classes import check_classes_of_weights, trained_classes
from detection.engine.accumulation import detector_step
from detection.engine.best import BestModel
from detection.engine.checkpoint_files import number_to_keep
from detection.engine.compiled import compile_network, eagerly
from detection.engine.metrics import has_row
from detection.engine.nonfinite import SkipNonFinite, checked_limit
from detection.engine.precision import LRScheduler, MixedPrecisionTrainer, Precision, StepScaler
from detection.engine.random_state import seeded
from detection.engine.results import results_part, write_results
from detection.engine.run_folder import evaluation_config
from detection.engine.trainer import ResumableTrainer, unwrap_ddp, wrap_ddp
from detection.engine.unreadable import UnreadableHook
from detection.engine.wandb_writer import WandbSettings, WandbWriter
from detection.engine.writers import MetricsHook, build_run_writers
from detection.evaluation import build_evaluator
from detection.logged_results import log_results
from detection.modeling.finite_proposals import propose_in_any_case
from detection.modeling.mask_loss import leave_out_objects_without_mask
from detection.modeling.meta_arch import check_registered_names
from detection.optimizer import build_optimizer, trunk_of
from detection.recipe import best_metric, check_evaluations, check_solver
from detection.report import check_cost_options, final_results, final_table
from detection.samples import leave_samples
from detection.validation import validation_losses

_log = logging.getLogger(__name__)
_LOG_PERIOD = 20


class DetectionTrainer(ResumableTrainer, DefaultTrainer):
    """Trains and evaluates the detector of a configuration, as ``DefaultTrainer`` does.

    Beyond that: data sets are checked before the training, a resumed run continues exactly, the
    backbone has to fit its weights, and the run ends with the final table and ``results.json``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Builds model, optimizer, schedule and data loader.

        Args:
            cfg: the whole configuration, with `detection.config.add_spnas_config`.

        Raises:
            UserError: if a data set cannot be used or a key has an impossible value.
        """
        cfg, _ = resolve_data(cfg)
        check_solver(cfg)
        check_cost_options(cfg)
        check_evaluations(cfg)
        check_test_sets(cfg)
        self._writers: list[EventWriter] = []
        self._every_step = Precision("cpu").scaler()
        self._precision = Precision.of(cfg)
        mixed = partial(MixedPrecisionTrainer, self._precision)
        # Detectron2's own give every model a GPU, and float16
        with mock.patch.multiple(defaults, create_ddp_model=wrap_ddp, AMPTrainer=mixed):
            super().__init__(cfg)

    @property
    def wandb_writer(self) -> WandbWriter | None:
        """The W&B writer of a running training on rank 0."""
        return next((item for item in self._writers if isinstance(item, WandbWriter)), None)

    @property
    def scaler(self) -> StepScaler:
        """Knows the steps that were skipped; without mixed precision, none."""
        return getattr(self._trainer, "grad_scaler", None) or self._every_step

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The detector, in the memory layout of ``MODEL.SPNAS.CHANNELS_LAST`` where that pays.

        Raises:
            UserError: if a part of the model has no such name.
        """
        check_registered_names(cfg)
        model: nn.Module = super().build_model(cfg)
        leave_out_objects_without_mask(model)
        propose_in_any_case(model)
        pays = cfg.MODEL.DEVICE == "cpu" or cfg.SOLVER.AMP.ENABLED
        if cfg.MODEL.SPNAS.CHANNELS_LAST and pays:
            model = model.to(memory_format=torch.channels_last)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See `detection.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader[Record]:
        """The checked, resumable training loader."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader[Record]:
        """The checked loader of one test set."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """COCO metrics, and drawings for the logs."""
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: Sequence[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Detectron2's; what it draws depends on ``SEED`` alone."""
        with seeded(cfg.SEED):
            scores: dict[str, Any] = super().test(cfg, model, evaluators)
        return scores

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks; the writers follow when the training starts, the report before."""
        self.checkpointer = DetectorCheckpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.checkpointer.classes = trained_classes(self.cfg)
        theirs = (hooks.LRScheduler, hooks.EvalHook, hooks.PeriodicWriter)
        found = [hook for hook in super().build_hooks() if hook is not None]
        found = [hook for hook in found if not isinstance(hook, theirs)]
        found.append(LRScheduler(self.scaler))
        to_keep = number_to_keep(self.cfg, usual=None)
        for hook in found:
            if isinstance(hook, hooks.PeriodicCheckpointer):
                hook.max_to_keep = to_keep
        found.append(hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, eagerly(self.evaluate)))
        if metric := best_metric(self.cfg):
            patience = self.cfg.SOLVER.EARLY_STOPPING.PATIENCE
            period, model = self.cfg.TEST.EVAL_PERIOD, unwrap_ddp(self.model)
            found.append(BestModel(period, metric, lambda: model, patience))
        skipping = SkipNonFinite(checked_limit(self.cfg), self.model, self.optimizer)
        return [skipping, *found, FinalReport()]

    def evaluate(self) -> dict[str, Any]:
        """What :meth:`test` returns, and the losses on the test sets where these are asked for."""
        self._last_eval_results = self.test(self.cfg, self.model)
        if not self.cfg.TEST.VALIDATION_LOSS:
            return self._last_eval_results
        losses = validation_losses(self.cfg, self.model)
        if losses:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
            _log.info("On the test sets: %s", shown)
        return {**self._last_eval_results, **losses}

    def build_writers(self) -> list[EventWriter]:
        """None yet: W&B and TensorBoard need to know where a resumed run starts."""
        return []

    def resume_or_load(self, resume: bool = True) -> None:
        """Continues the run in ``OUTPUT_DIR`` if there is one and ``resume``, else loads weights.

        Raises:
            UserError: if the checkpoint is missing, broken, or of another architecture.
        """
        super().resume_or_load(resume)
        if self.start_iter > 0:
            loader = self.data_loader
            skip_batches(loader, self.start_iter)
            if hasattr(self._trainer, "reset_data_loader"):  # Detectron2's main branch
                self._trainer.reset_data_loader(lambda: loader)
            else:
                self._trainer._data_loader_iter = iter(loader)
            _log.info("Resuming at iteration %d of %d", self.start_iter, self.max_iter)
            return
        if not self.cfg.MODEL.WEIGHTS:
            _log.info("MODEL.WEIGHTS is empty: training starts from the model as it was built")
        mention_backbone_beside(self.cfg)

    def settled(self) -> bool:
        """Whether the last evaluation came to its end; without a test set there is none."""
        return not self.cfg.DATASETS.TEST or (
            results_part(self.folder, "detection") is not None
            and has_row(self.folder, self.finished)
        )

    def run_step(self) -> None:
        """One step on all processes, in ``SOLVER.ACCUMULATE`` forward passes."""
        self._trainer.iter = self.iter
        detector_step(self._trainer, self._precision, self.scaler, self.cfg.SOLVER.ACCUMULATE)

    def before_train(self) -> None:
        """Opens the writers, compiles the backbone where it is to be, then runs the hooks."""
        if comm.is_main_process() and not self._writers:
            self._writers = build_run_writers(
                self.cfg.OUTPUT_DIR,
                self.max_iter,
                WandbSettings.from_cfg(self.cfg.WANDB),
                self.start_iter,
                self.progress_note,
            )
            said = UnreadableHook(self.cfg.OUTPUT_DIR, _LOG_PERIOD)
            self.register_hooks([said, MetricsHook(self._writers, _LOG_PERIOD)])
        if self.cfg.SOLVER.COMPILE:
            compile_network(trunk_of(self.cfg, unwrap_ddp(self.model), "COMPILE"))
        super().before_train()


class FinalReport(HookBase):
    """Writes the final table when the training is complete, while the writers are still open."""

    def after_train(self) -> None:
        """Uses the results of the last evaluation."""
        trainer = self.trainer
        scores = getattr(trainer, "_last_eval_results", None)
        if trainer.iter < trainer.max_iter or not scores or not comm.is_main_process():
            return
        report(trainer.cfg, trainer.model, scores, trainer.wandb_writer)


def report(
    cfg: CfgNode, model: nn.Module, scores: Mapping[str, Any], wandb: WandbWriter | None = None
) -> dict[str, Any]:
    """Prints the final table and writes it to ``results.json`` and W&B.

    Args:
        cfg: the whole configuration.
        model: the detector.
        scores: what :meth:`DetectionTrainer.test` returned.
        wandb: the writer of the run, if there is one.

    Returns:
        What went to ``results.json`` under ``detection``.
    """
    results = final_results(cfg, unwrap_ddp(model), scores)
    path = write_results(cfg.OUTPUT_DIR, {"detection": results})
    _log.info("Final results, also in '%s':\n%s", path, final_table(results))
    leave_samples(cfg, wandb)
    if wandb is not None:
        log_results(results, wandb)
    return results


def evaluate(cfg: CfgNode, model: nn.Module | None = None, resume: bool = False) -> dict[str, Any]:
    """``--eval-only``: loads the weights, evaluates, and reports in ``OUTPUT_DIR/evaluation``.

    Args:
        cfg: the whole configuration.
        model: a detector with its weights; None builds one and loads ``MODEL.WEIGHTS``.
        resume: load the last checkpoint in ``OUTPUT_DIR`` instead, if there is one.

    Returns:
        On the main process, what :func:`report` returns.

    Raises:
        UserError: if the weights are missing, do not fit the model completely, or were trained on
            other classes.
    """
    cfg, _ = resolve_data(cfg, training=False)
    check_cost_options(cfg)
    check_test_sets(cfg)
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; name at least one data set, e.g. digits_val")
    if model is None:
        model = DetectionTrainer.build_model(cfg)
        checkpointer = DetectorCheckpointer(model, cfg.OUTPUT_DIR, strict=True)
        if not cfg.MODEL.WEIGHTS and not (resume and checkpointer.has_checkpoint()):
            raise UserError(
                "--eval-only needs weights; append e.g. MODEL.WEIGHTS output/run/model_final.pth"
            )
        found = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
        check_classes_of_weights(cfg, found.get("classes"))
    cfg = evaluation_config(cfg)
    scores = DetectionTrainer.test(cfg, model)
    return report(cfg, model, scores) if comm.is_main_process() else {}
