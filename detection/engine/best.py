"""The best of the models that were evaluated on the way, and the end of a training that it brings.

For detector and classifier alike: whoever has an evaluation period has a best model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from backbones.errors import UserError
from backbones.weights import read_checkpoint
from detection.engine.results import write_results

BEST_MODEL = "model_best"
BEST_PART = "best"
"""Of ``results.json``."""

logger = logging.getLogger(__name__)


class BestModel(HookBase):
    """Keeps the best model of all evaluations in ``model_best.pth``; stops where none gets better.

    The file holds the model's weights, the figure and the iterations they were trained for. It is
    all that a resumed run needs, for it is written before the evaluation's row of metrics: what
    was evaluated has its part in it, and an evaluation that is done again finds the same.

    Attributes:
        figure: the best value; None before the first.
        iterations: how long the best model was trained.
    """

    def __init__(
        self,
        period: int,
        metric: str,
        model: Callable[[], nn.Module],
        patience: int = 0,
    ) -> None:
        """Registered behind the evaluation that finds the metric.

        Args:
            period: iterations between evaluations.
            metric: a scalar of the evaluation, such as ``segm/AP``; of a loss the lowest is best.
            model: returns what was evaluated.
            patience: evaluations without a better one after which the training stops; 0 is never.
        """
        self.metric, self._period, self._model = metric, period, model
        self._patience = patience
        self._lower = metric.rpartition("/")[2].endswith("loss")
        self.figure: float | None = None
        self.iterations = 0

    def before_train(self) -> None:
        """Takes over the best of an earlier process of the run."""
        self.load()

    def load(self) -> None:
        """Reads the file of a resumed run; one of another metric counts as none."""
        if self.trainer.start_iter == 0:
            return
        path = Path(self.trainer.folder) / f"{BEST_MODEL}.pth"
        found: Any = None
        if comm.is_main_process() and path.exists():
            try:
                content = read_checkpoint(path)
                if content.get("metric") == self.metric:
                    found = float(content["figure"]), int(content["iterations"])
            except (UserError, KeyError, TypeError, ValueError) as error:
                logger.warning("%s: the best model is looked for anew", error)
        found = comm.all_gather(found)[0]
        if found is not None:
            self.figure, self.iterations = found

    def after_step(self) -> None:
        """Where there was an evaluation, which the last iteration has at the end."""
        finished = self.trainer.iter + 1
        if self._is_due(finished) and finished != self.trainer.max_iter:
            self._compare(finished)
            if self.exhausted(finished):
                self.trainer.stop_early(self._reason(finished))

    def after_train(self) -> None:
        """Compares the final model, and says which was the best."""
        if self.trainer.iter < self.trainer.max_iter:
            return
        self._compare(self.trainer.iter)
        if self.figure is None or not comm.is_main_process():
            return
        path = Path(self.trainer.folder) / f"{BEST_MODEL}.pth"
        logger.info(
            "Best %s: %.4g after iteration %d of %d, in '%s'",
            *(self.metric, self.figure, self.iterations, self.trainer.iter, path),
        )
        best = {"metric": self.metric, "value": self.figure, "iteration": self.iterations}
        write_results(self.trainer.folder, {BEST_PART: {**best, "weights": path.name}})
        if writer := self.trainer.wandb_writer:
            writer.log_summary({f"best/{self.metric}": self.figure, "best/iter": self.iterations})

    def exhausted(self, finished: int) -> bool:
        """Whether a training ends behind an iteration, for want of a better model.

        Args:
            finished: iterations that are done.
        """
        if not self._patience or not self._is_due(finished):
            return False
        return (finished - self.iterations) // self._period >= self._patience

    def _is_due(self, finished: int) -> bool:
        return self._period > 0 and finished % self._period == 0

    def _compare(self, finished: int) -> None:
        value, at = self.trainer.storage.latest().get(self.metric, (math.nan, -1))
        value = value if at == self.trainer.storage.iter else math.nan
        value = comm.all_gather(value)[0]  # other ranks have no results
        if not math.isfinite(value) or not self._is_better(value):
            return
        self.figure, self.iterations = float(value), finished
        figures = {"metric": self.metric, "figure": self.figure, "iterations": finished}
        self.trainer.checkpointer.save_aside(BEST_MODEL, self._model(), **figures)

    def _is_better(self, value: float) -> bool:
        if self.figure is None:
            return True
        return value < self.figure if self._lower else value > self.figure

    def _reason(self, finished: int) -> str:
        best = "none was finite"
        if self.figure is not None:
            best = f"best {self.figure:.4g} after iteration {self.iterations}"
        return (
            f"{self.metric} has not become better in {self._patience} evaluations ({best}): the "
            f"training ends after iteration {finished} of {self.trainer.max_iter} "
            "(SOLVER.EARLY_STOPPING.PATIENCE)"
        )


def check_best_keys(
    metric: str, patience: int, every: str, evaluates: bool, known: Collection[str] = ()
) -> None:
    """Insists on keys of the best model and of early stopping that make sense together.

    Args:
        metric: ``SOLVER.BEST_METRIC``.
        patience: ``SOLVER.EARLY_STOPPING.PATIENCE``.
        every: the key of the evaluation period.
        evaluates: whether the run evaluates on the way.
        known: metrics that its evaluations find; empty checks none.

    Raises:
        UserError: naming the key.
    """
    if patience < 0:
        raise UserError(
            f"SOLVER.EARLY_STOPPING.PATIENCE is {patience}; expected a number of evaluations, or "
            "0 to train to the end"
        )
    if not metric:
        if patience:
            raise UserError(
                f"SOLVER.EARLY_STOPPING.PATIENCE is {patience}, but SOLVER.BEST_METRIC is empty; "
                "name what has to get better, e.g. SOLVER.BEST_METRIC bbox/AP, or val/top1 for a "
                "classifier"
            )
        return
    if not evaluates:
        raise UserError(
            f"SOLVER.BEST_METRIC is '{metric}', but nothing is evaluated before the end; set "
            f"{every} to less than the training has, or SOLVER.BEST_METRIC ''"
        )
    if known and metric not in known:
        raise UserError(
            f"SOLVER.BEST_METRIC is '{metric}', which no evaluation of this run finds; expected "
            f"one of {', '.join(known)}"
        )
