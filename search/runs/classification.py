"""The search: cross entropy + λ·log(runtime) over one supernet, and the network it ends with."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torch.utils.data import Subset

from backbones.architecture import Architecture
from backbones.errors import UserError
from search.classification.data import (
    build_dataset,
    build_train_loader,
    count_classes,
    split_images,
)
from search.classification.trainer import ClassificationTrainer
from search.runs.build import build_runtime_model, build_tradeoff, check_targets
from search.runs.formulations import build_supernet, formulation_of
from search.runs.found import FoundNetworks, search_results
from search.runs.runtime_loss import log_decisions, runtime_loss
from search.space import SearchSpace
from search.supernets.single_path import Supernet

logger = logging.getLogger(__name__)

LEARNED = 0.9
"""Of the cross entropy of guessing: a supernet above it knows next to nothing."""


class SearchTrainer(ClassificationTrainer):
    """Trains weights and decisions together (Eq. 9-11) and exports the network found.

    In a bilevel formulation they are trained in turns (Eq. 8): weights in even iterations,
    decisions in odd ones, each on images of their own. In an evolutionary search the weights alone
    are trained, a network drawn uniformly at every step.

    Everything is decided from the live supernet, not from averaged weights: an average crosses
    thresholds at other times than the model that it averages.
    """

    def __init__(self, cfg: CfgNode) -> None:
        if cfg.CLASSIFICATION.EMA_DECAY:
            raise UserError(
                f"CLASSIFICATION.EMA_DECAY is {cfg.CLASSIFICATION.EMA_DECAY:g}; a search decides "
                "from the live supernet, set it to 0"
            )
        self.formulation = formulation_of(cfg)
        if self.formulation.uniform and not cfg.SEARCH.TARGET:
            raise UserError(
                f"SEARCH.FORMULATION '{cfg.SEARCH.FORMULATION}' has no λ; set SEARCH.TARGET to the "
                "runtime to search for"
            )
        self.space = SearchSpace.load(cfg.SEARCH.SPACE)
        self.runtime_model = build_runtime_model(cfg, self.space).to(cfg.MODEL.DEVICE)
        check_targets(cfg, self.runtime_model)
        self.tradeoff = build_tradeoff(cfg)
        slim = self.space.scaled(cfg.SEARCH.WIDTH_MULT)
        self.supernet = build_supernet(cfg, slim, count_classes(cfg))
        super().__init__(cfg, self.supernet, {"tradeoff": self.tradeoff})
        # A supernet that is loaded in part would be searched, and be worth nothing.
        self.checkpointer.strict, self.checkpointer.optional = True, ("classifier.",)
        self.parts = self._parts()
        self.networks = FoundNetworks(
            cfg,
            self.space,
            self.runtime_model,
            self.supernet,
            self.parts[0],
            Subset(build_dataset(cfg, "train", augment=False), self.parts[1].indices),
        )

    def run_step(self) -> None:
        """One step over weights and decisions."""
        node = self.cfg.SEARCH
        if isinstance(self.supernet, Supernet) and not self.formulation.bilevel:
            dropping = self.progress < node.SUBSET_DROPOUT_UNTIL
            self.supernet.subset_dropout = node.SUBSET_DROPOUT if dropping else 0.0
        drawn = self.space.sample(random.Random(f"{self.cfg.SEED} {self.iter}"))
        with self.supernet.using(drawn) if self.formulation.uniform else nullcontext():
            super().run_step()

    def _parts(self) -> tuple[Subset[Any], Subset[Any]]:
        """The training images for the weights, and those for decisions where they are others."""
        if self.formulation.bilevel or self.formulation.uniform:
            kept, held_out = split_images(self.cfg, len(self.train_data))
        else:
            kept, held_out = list(range(len(self.train_data))), []
        return Subset(self.train_data, kept), Subset(self.train_data, held_out)

    def train_batches(self, start_iter: int) -> Iterator[Any]:
        """As for every classifier; in a bilevel search from the two parts in turns."""
        if not self.formulation.bilevel:
            return iter(build_train_loader(self.cfg, self.parts[0], start_iter))
        starts = ((start_iter + 1) // 2, start_iter // 2)
        loaders = [
            iter(build_train_loader(self.cfg, part, start))
            for part, start in zip(self.parts, starts, strict=True)
        ]
        return (next(loaders[iteration % 2]) for iteration in count(start_iter))

    def after_backward(self) -> None:
        """In a bilevel search, keeps the gradients of the side whose turn it is."""
        if not self.formulation.bilevel:
            return
        deciding = set(self.supernet.decision_parameters())
        for parameter in self.supernet.parameters():
            if (parameter in deciding) != bool(self.iter % 2):
                parameter.grad = None

    def losses(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross entropy and λ·log R (Eq. 10)."""
        losses = super().losses(logits, targets)
        if self.formulation.uniform:
            return losses
        losses["loss_runtime"] = runtime_loss(
            self.supernet, self.runtime_model, self.tradeoff, self.progress
        )
        return losses

    def after_step(self) -> None:
        """Logs the decisions of every layer together with the other metrics."""
        if (self.iter + 1) % self.log_period == 0 and not self.formulation.uniform:
            log_decisions(self.supernet, self.space)
        if self.iter + 1 == self.max_iter:
            self._warn_if_unlearned()
        super().after_step()

    def _warn_if_unlearned(self) -> None:
        """A search ends with a network whatever happens; this tells one that decided blindly."""
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
        return self.networks.found(target, self.iter + 1 if self.iter else self.start_iter)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Accuracy of the network found, after estimating its batch-norm statistics.

        An evolutionary search has found nothing before its end.
        """
        if self.formulation.uniform and not self.complete:
            return {}
        architecture = self.found(self.cfg.SEARCH.TARGET)
        network, scores = self.networks.judged(architecture, self.val_data)
        if self.complete:
            output = Path(self.output_dir)
            found = self.networks.export(architecture, network, scores, output)
            further = {"family": self._family(), "samples": self._samples()}
            target = self.cfg.SEARCH.TARGET
            results = search_results(self.runtime_model, target, found, further)
            self.write_results({"search": results})
        return {"val": scores, "found": {"runtime": architecture.provenance["predicted_runtime"]}}

    def evaluate_only(self) -> None:
        """Accuracy of the network that a search ended with, or would end with now.

        The search is the one in ``OUTPUT_DIR``, else the supernet in ``MODEL.WEIGHTS``.

        Raises:
            UserError: if there is neither.
        """
        if not (self.cfg.MODEL.WEIGHTS or self.checkpointer.has_checkpoint()):
            raise UserError(
                f"--eval-only: there is no search in OUTPUT_DIR '{self.output_dir}'; name the "
                "folder of one, or the model_final.pth of one as MODEL.WEIGHTS"
            )
        self.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=True)
        self.evaluate()

    def _family(self) -> list[dict[str, Any]]:
        """The networks of ``SEARCH.FAMILY``, exported."""
        targets = self.cfg.SEARCH.FAMILY
        return [self._exported(self.found(t), Path("family", f"{t:g}")) for t in targets]

    def _samples(self) -> list[dict[str, Any]]:
        """``SEARCH.SAMPLES`` networks drawn from the decisions' distribution, exported."""
        drawn = self.networks.sampled(self.iter + 1) if self.cfg.SEARCH.SAMPLES else []
        return [self._exported(a, Path("samples", f"{i:02d}")) for i, a in enumerate(drawn)]

    def _exported(self, architecture: Architecture, folder: Path) -> dict[str, Any]:
        network, scores = self.networks.judged(architecture, self.val_data)
        return self.networks.export(architecture, network, scores, Path(self.output_dir) / folder)
