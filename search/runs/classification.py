"""The search: cross entropy + λ·log(runtime) over one supernet, and the network it ends with."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torch.utils.data import Subset

from backbones.architecture import Architecture
from backbones.errors import UserError
from detection.engine.results import write_results
from detection.engine.run_folder import evaluation_config
from search.classification.data import build_dataset, count_classes
from search.classification.trainer import ClassificationTrainer
from search.report.decision_pictures import DecisionPictures
from search.runs.build import build_runtime_model, build_tradeoff, check_targets
from search.runs.formulations.registry import supernet_formulation
from search.runs.found import FoundNetworks, found_row, search_results
from search.runs.judge import ClassifierJudge
from search.runs.layers_file import write_layers
from search.runs.runtime_loss import (
    check_decisions,
    search_note,
    seed_draws,
    unmoved_if_skipped,
)
from search.space import Choice
from search.start.remapping import start_supernet
from search.start.seed import reference_choices, search_space, seed_of

logger = logging.getLogger(__name__)

LEARNED = 0.9
"""Share of ln(classes), the cross entropy of guessing, above which nothing has been learned."""


class SearchTrainer(ClassificationTrainer):
    """Trains weights and decisions as the formulation says, and exports the network found.

    What is trained when, on which images, and how the network is chosen are the formulation's
    (:mod:`search.runs.formulations`); by default both are trained together (Eq. 9-11).

    Everything is decided from the live supernet, not from averaged weights: an average crosses
    thresholds at other times than the model that it averages.
    """

    part = "search"

    def __init__(self, cfg: CfgNode) -> None:
        if cfg.CLASSIFICATION.EMA_DECAY:
            raise UserError(
                f"CLASSIFICATION.EMA_DECAY is {cfg.CLASSIFICATION.EMA_DECAY:g}; a search decides "
                "from the live supernet, set it to 0"
            )
        self.formulation = supernet_formulation(cfg)
        self.space = search_space(cfg)
        self.seed = seed_of(cfg)
        self.runtime_model = build_runtime_model(cfg, self.space).to(cfg.MODEL.DEVICE)
        check_targets(cfg, self.runtime_model)
        self.tradeoff = build_tradeoff(cfg)
        slim = self.space.scaled(cfg.SEARCH.WIDTH_MULT)
        self.supernet = self.formulation.build_supernet(cfg, slim, count_classes(cfg))
        super().__init__(cfg, self.supernet, {"tradeoff": self.tradeoff})
        # A supernet that is loaded in part would be searched, and be worth nothing.
        self.checkpointer.strict, self.checkpointer.optional = True, ("classifier.",)
        self.parts = self.formulation.parts(cfg, self.train_data)
        plain = build_dataset(cfg, "train", augment=False, images=self.images)
        self.networks = FoundNetworks(
            cfg,
            self.space,
            self.runtime_model,
            self.supernet,
            self.parts[0],
            Subset(plain, self.parts[1].indices),
            self.reference,
        )
        self.judge = ClassifierJudge(self.networks)
        self.formulation.check(self)
        self.register_hooks([DecisionPictures()])

    @property
    def reference(self) -> Sequence[Choice]:
        """The choices of the network that the search started from, or of the largest one."""
        return reference_choices(self.seed, self.space)

    def resume_or_load(self, path: str = "", resume: bool = False) -> None:
        """As any run; a new search starts from the weights of ``SEARCH.START``, where named."""
        super().resume_or_load("" if self.seed else path, resume)
        if self.seed and not (resume and self.checkpointer.has_checkpoint()):
            start_supernet(self.supernet, self.seed)

    def progress_note(self) -> str:
        """Runtime, budget and λ beside the losses."""
        return search_note(self.tradeoff, self.runtime_model.table.unit)

    def run_step(self) -> None:
        """One step over weights and decisions."""
        seed_draws(self.supernet, self.cfg.SEED, self.iter)
        with self.formulation.step(self), unmoved_if_skipped(self.tradeoff, self.scaler):
            super().run_step()

    def train_batches(self, start_iter: int) -> Iterator[Any]:
        """Endless batches from iteration ``start_iter`` on, of the parts of the training images."""
        return self.formulation.batches(self.cfg, self.parts, start_iter)

    def after_backward(self) -> None:
        """Drops the gradients of what is to stay in this step."""
        self.formulation.mask_gradients(self)

    def losses(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross entropy and, where decisions are trained, λ·log R (Eq. 10)."""
        return {**super().losses(logits, targets), **self.formulation.losses(self)}

    def after_step(self) -> None:
        """Checks and logs the decisions of every layer, together with the other metrics."""
        if (self.iter + 1) % self.log_period == 0:
            check_decisions(self.supernet)
            self.formulation.log(self)
        if self.iter + 1 == self.max_iter:
            self._warn_if_unlearned()
        super().after_step()

    def _warn_if_unlearned(self) -> None:
        """Warns if the supernet's loss is close to guessing: its decisions then rest on noise."""
        histories = get_event_storage().histories()
        loss = histories.get("loss_ce", histories["total_loss"]).median(20)
        guessing = math.log(self.supernet.num_classes)
        if loss > LEARNED * guessing:
            logger.warning(
                "The supernet's cross entropy is %.2f at the end, and guessing has %.2f: it has "
                "hardly learned, so its decisions rest on little. Search longer "
                "(CLASSIFICATION.EPOCHS), lower SEARCH.SUBSET_DROPOUT, or change SOLVER.BASE_LR.",
                loss,
                guessing,
            )

    def found(self, target: float) -> Architecture:
        """The architecture that the search would end with now.

        Args:
            target: runtime to select at; 0 takes the supernet's own decisions.
        """
        choices = self.formulation.choose(self, target, self.judge)
        return self.networks.described(choices, self.finished)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Accuracy of the network found, after estimating its batch-norm statistics.

        An evolutionary search has found nothing before its end.
        """
        if not self.formulation.has_network(self.complete):
            return {}
        architecture = self.found(self.cfg.SEARCH.TARGET)
        network, scores = self.networks.judged(architecture, self.val_data)
        if self.complete:
            output = Path(self.output_dir)
            found = self.networks.export(architecture, network, scores, output)
            choices = self.space.choices_of(architecture)
            write_layers(output, self.runtime_model, choices, self.supernet)
            further = {
                "family": self._family(),
                "samples": self._samples(),
                "start": self._start(),
            }
            results = search_results(self.runtime_model, self.cfg.SEARCH, found, further)
            self.write_results({"search": results})
        return {"val": scores, "found": {"runtime": architecture.provenance["predicted_runtime"]}}

    def evaluate_only(self) -> None:
        """Accuracy of the network that a search ended with, or would end with now.

        The search is the one in ``OUTPUT_DIR``, else the supernet in ``MODEL.WEIGHTS``. Its files
        stay as they are; the results are in ``OUTPUT_DIR/evaluation``.

        Raises:
            UserError: if there is neither.
        """
        weights = "" if self.seed else self.cfg.MODEL.WEIGHTS
        if not (weights or self.checkpointer.has_checkpoint()):
            raise UserError(
                f"--eval-only: there is no search in OUTPUT_DIR '{self.output_dir}'; name the "
                "folder of one, or the model_final.pth of one as MODEL.WEIGHTS"
            )
        self.resume_or_load(weights, resume=True)
        architecture = self.found(self.cfg.SEARCH.TARGET)
        _, scores = self.networks.judged(architecture, self.val_data)
        if comm.is_main_process():
            row = {**found_row(self.space, architecture), "val": scores}
            write_results(evaluation_config(self.cfg).OUTPUT_DIR, {self.part: row})

    def _family(self) -> list[dict[str, Any]]:
        """The networks of ``SEARCH.FAMILY``, exported."""
        targets = self.cfg.SEARCH.FAMILY
        return [self._exported(self.found(t), Path("family", f"{t:g}")) for t in targets]

    def _start(self) -> list[dict[str, Any]]:
        """The network that the search started from, as it is now, exported."""
        if not self.seed:
            return []
        architecture = self.networks.described(self.seed.choices, self.finished)
        return [self._exported(architecture, Path("start"))]

    def _samples(self) -> list[dict[str, Any]]:
        """``SEARCH.SAMPLES`` networks drawn from the decisions' distribution, exported."""
        drawn = self.networks.sampled(self.finished) if self.cfg.SEARCH.SAMPLES else []
        return [self._exported(a, Path("samples", f"{i:02d}")) for i, a in enumerate(drawn)]

    def _exported(self, architecture: Architecture, folder: Path) -> dict[str, Any]:
        network, scores = self.networks.judged(architecture, self.val_data)
        return self.networks.export(architecture, network, scores, Path(self.output_dir) / folder)
