"""The best model of a training, and the end that comes with it, whatever is killed on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from detectron2.engine import hooks
from torch import nn

from backbones import UserError
from detection.engine.best import BestModel, check_best_keys
from detection.engine.metrics import read_metrics
from detection.engine.results import results_part
from detection.engine.trainer import RunTrainer


class Killed(BaseException):
    """What no code of a run handles."""


class Run(RunTrainer):
    """Its weight is the number of steps, and an evaluation finds what the test says."""

    def __init__(
        self, folder: Path, figures: Sequence[float], patience: int = 0, metric: str = "val/top1"
    ) -> None:
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        super().__init__(
            model,
            max_iter=2 * len(figures),
            output_dir=str(folder),
            checkpointables={},
            checkpoint_period=3,
        )
        self._figures, self._metric = figures, metric
        best = BestModel(2, metric, lambda: model, patience)
        self.register_hooks([hooks.EvalHook(2, self.evaluate), best])
        self.evaluated: list[int] = []
        self.kill_at = -1

    def run_step(self) -> None:
        if self.iter == self.kill_at:
            self.after_train = lambda: None  # type: ignore[method-assign]
            raise Killed
        with torch.no_grad():
            self.model.weight.add_(1)

    def settled(self) -> bool:
        return any(row["iteration"] == self.finished for row in read_metrics(self.folder))

    def evaluate(self) -> dict[str, float]:
        self.evaluated.append(int(self.model.weight))
        return {self._metric: self._figures[int(self.model.weight) // 2 - 1]}


def best_of(folder: Path) -> tuple[float, int, float]:
    content = torch.load(folder / "model_best.pth", weights_only=True)
    return content["figure"], content["iterations"], float(content["model"]["weight"])


@pytest.mark.parametrize(
    ("metric", "figures", "expected"),
    [
        ("val/top1", [1.0, 5.0, 3.0, 5.0], (5.0, 4, 4.0)),  # the first of equals
        ("val/loss", [4.0, 3.0, 2.0, 2.5], (2.0, 6, 6.0)),
        ("validation_loss", [4.0, 3.0, 2.0, 1.5], (1.5, 8, 8.0)),
        ("segm/AP", [math.nan, 0.0, math.inf, math.nan], (0.0, 4, 4.0)),
    ],
)
def test_the_best_is_kept(
    tmp_path: Path, metric: str, figures: list[float], expected: tuple[float, int, float]
) -> None:
    Run(tmp_path, figures, metric=metric).train()
    assert best_of(tmp_path) == expected
    value, iteration, _ = expected
    assert results_part(tmp_path, "best") == {
        **{"metric": metric, "value": value, "iteration": iteration},
        "weights": "model_best.pth",
    }
    # It is no checkpoint to go on from.
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


FIGURES = [1.0, 9.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


@pytest.mark.parametrize("kill_at", [None, 3, 4, 5, 6, 7, 8])
def test_a_training_stops_early_once(tmp_path: Path, kill_at: int | None) -> None:
    """Best after 4 of 16 steps; two evaluations later, wherever it is killed, it ends."""
    if kill_at is not None:
        first = Run(tmp_path, FIGURES, patience=2)
        first.kill_at = kill_at
        if kill_at < 8:
            with pytest.raises(Killed):
                first.train()
        else:  # it has ended before
            first.train()
    run = Run(tmp_path, FIGURES, patience=2)
    run.resume_or_load(resume=True)
    run.train()
    assert run.finished == run.max_iter == 8
    assert run.model.weight.item() == 8
    assert best_of(tmp_path) == (9.0, 4, 4.0)
    rows = {row["iteration"]: row["val/top1"] for row in read_metrics(tmp_path)}
    assert rows == {1: 1.0, 3: 9.0, 5: 2.0, 7: 3.0, 8: 3.0}
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert (final["iteration"], float(final["model"]["weight"])) == (7, 8.0)
    best = results_part(tmp_path, "best")

    again = Run(tmp_path, FIGURES, patience=2)
    again.resume_or_load(resume=True)
    again.train()
    assert again.evaluated == [] and again.finished == again.max_iter == 8
    assert results_part(tmp_path, "best") == best

    # With more patience it goes on where it was.
    more = Run(tmp_path, FIGURES, patience=9)
    more.resume_or_load(resume=True)
    more.train()
    assert more.finished == 16
    assert best_of(tmp_path) == (9.0, 4, 4.0)


def test_stopped_and_killed_before_the_last_evaluation(tmp_path: Path) -> None:
    first = Run(tmp_path, FIGURES, patience=2)
    save = first.checkpointer.save

    def killed(name: str, **kwargs: object) -> None:
        save(name, **kwargs)
        if name == "model_final":
            first.after_train = lambda: None  # type: ignore[method-assign]
            raise Killed

    first.checkpointer.save = killed
    with pytest.raises(Killed):
        first.train()
    assert results_part(tmp_path, "best") is None
    run = Run(tmp_path, FIGURES, patience=2)
    run.resume_or_load(resume=True)
    run.train()
    assert run.evaluated == [8] and run.finished == 8
    assert results_part(tmp_path, "best")["iteration"] == 4


def test_a_best_model_of_another_metric_counts_as_none(tmp_path: Path) -> None:
    Run(tmp_path, [9.0, 9.0]).train()
    (tmp_path / "last_checkpoint").write_text("model_0000002.pth")
    run = Run(tmp_path, [0.0, 0.5], metric="val/loss")
    run.resume_or_load(resume=True)
    run.train()
    assert best_of(tmp_path) == (0.5, 4, 4.0)


@pytest.mark.parametrize(
    ("metric", "patience", "evaluates", "message"),
    [
        ("val/top1", -1, True, "PATIENCE is -1; expected a number of evaluations"),
        ("", 3, True, "PATIENCE is 3, but SOLVER.BEST_METRIC is empty; name what"),
        ("val/top1", 3, False, "nothing is evaluated before the end; set A.PERIOD to less"),
        ("val/AP", 3, True, "'val/AP', which no evaluation of this run finds; expected one of val"),
    ],
)
def test_keys_that_make_no_sense(metric: str, patience: int, evaluates: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_best_keys(metric, patience, "A.PERIOD", evaluates, ("val/top1",))
    check_best_keys("val/top1", 3, "A.PERIOD", True, ("val/top1",))
    check_best_keys("", 0, "A.PERIOD", False)
