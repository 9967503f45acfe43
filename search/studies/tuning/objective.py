"""The objective over λ (Eq. 19), evaluated by a search."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from backbones.scratch import scratch_folder
from search.runs.classification import SearchTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Result of a search with one λ so far.

    Attributes:
        epochs: searched so far.
        accuracy: top-1 of the network found on the validation images, in percent.
        runtime: predicted, in the unit of the latency table.
    """

    epochs: float
    accuracy: float
    runtime: float


Evaluate = Callable[[float, int, int, Callable[[Outcome], None]], Outcome]
"""λ, epochs, seed, and what to call with the outcome after every epoch → the last outcome."""


def objective_value(accuracy: float, runtime: float, target: float) -> float:
    """Eq. 19: the accuracy, scaled down by target / runtime where the runtime is above the target.

    Args:
        accuracy: of the network found.
        runtime: of the network found.
        target: in the same unit.
    """
    return accuracy * (1.0 if runtime <= target else target / runtime)


class _ReportingTrainer(SearchTrainer):
    """A search that reports every evaluation to a callback."""

    def __init__(self, cfg: CfgNode, report: Callable[[Outcome], None]) -> None:
        super().__init__(cfg)
        self.report = report
        self.outcome: Outcome | None = None

    def evaluate(self) -> dict[str, dict[str, float]]:
        """As the search's; an exception from ``report`` ends the search."""
        results = super().evaluate()
        done = round(min((self.iter + 1) / self.max_iter, 1) * self.cfg.CLASSIFICATION.EPOCHS)
        self.outcome = Outcome(done, results["val"]["top1"], results["found"]["runtime"])
        self.report(self.outcome)
        return results


def search_outcome(cfg: CfgNode, report_every_epoch: bool) -> Evaluate:
    """Real searches with a fixed λ as an :data:`Evaluate` function.

    Args:
        cfg: of the search; λ, epochs and seed are set for each.
        report_every_epoch: evaluate after every epoch, for solvers that stop early.
    """

    def evaluate(
        weight: float, epochs: int, seed: int, report: Callable[[Outcome], None]
    ) -> Outcome:
        trial = cfg.clone()
        trial.defrost()
        trial.SEARCH.TARGET = 0.0
        trial.SEARCH.MEASURE = False
        trial.SEARCH.LAMBDA = float(weight)
        trial.CLASSIFICATION.EPOCHS = float(epochs)
        trial.CLASSIFICATION.EVAL_EPOCHS = 1.0 if report_every_epoch else 0.0
        trial.SEED = seed
        trial.WANDB.ENABLED = False
        with scratch_folder("tune") as folder:
            trial.OUTPUT_DIR = str(folder / "search")
            seed_all_rng(seed)
            trainer = _ReportingTrainer(trial, report)
            trainer.train()
        assert trainer.outcome is not None
        return trainer.outcome

    return evaluate
