"""A batch of NaN in every kind of training: the step is skipped, and too many are explained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.utils.env import seed_all_rng
from torch import Tensor

from detection.engine.metrics import read_metrics
from detection.engine.nonfinite import NonFiniteError, SkipNonFinite
from detection.trainer import DetectionTrainer
from search.studies.kills.differences import first_difference
from tests.search.runs.test_recovery import (
    Trainer,
    best_classifier,
    classifier,
    detector,
    detector_search,
    search,
)

KINDS = [search, classifier, best_classifier, detector, detector_search]


def poison(trainer: Trainer, at: int) -> None:
    """NaN in the images of one iteration; the first one has number 0."""
    if isinstance(trainer, DetectionTrainer):
        trainer._trainer._data_loader_iter = spoilt(trainer._trainer._data_loader_iter, at)
        return
    forward = trainer._forward

    def run(images: Tensor) -> Tensor:
        if trainer.iter == at:
            images[0, 0, 3, 3] = float("nan")
        return forward(images)

    trainer._forward = run  # type: ignore[method-assign]


def spoilt(batches: Iterator[list[dict[str, Any]]], at: int) -> Iterator[list[dict[str, Any]]]:
    """A detector's batches, whose images are in integers."""
    for number, batch in enumerate(batches):
        for record in batch if number == at else ():
            record["image"] = record["image"].float()
            record["image"][0, 3, 3] = float("nan")
        yield batch


def spied(trainer: Trainer) -> list[dict[str, Any]]:
    """What is trained, before every step and at the end."""
    states: list[dict[str, Any]] = []
    step, after = trainer.run_step, trainer.after_train

    def look() -> None:
        model = trainer.checkpointer.model.state_dict()
        found = {"model": model, "optimizer": trainer.optimizer.state_dict()["state"]}
        states.append(copy.deepcopy(found))

    def run_step() -> None:
        look()
        step()

    def after_train() -> None:
        look()
        after()

    trainer.run_step = run_step
    trainer.after_train = after_train
    return states


@pytest.mark.parametrize("make", KINDS)
def test_a_step_of_nan_is_skipped(
    make: Callable[[Path, Path], Trainer], images: Path, tiny_coco: Path, tmp_path: Path
) -> None:
    seed_all_rng(0)
    trainer = make(images, tmp_path)
    poison(trainer, 1)
    states = spied(trainer)
    trainer.train()
    (hook,) = (hook for hook in trainer._hooks if isinstance(hook, SkipNonFinite))
    assert hook.skipped == 1
    assert first_difference(states[1], states[2]) is None
    assert first_difference(states[0], states[1]) is not None
    assert trainer.finished == trainer.max_iter
    counts = {row["nonfinite_steps"] for row in read_metrics(tmp_path) if "nonfinite_steps" in row}
    assert counts == {1}
    for value in trainer.checkpointer.model.state_dict().values():
        assert value.isfinite().all()


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (
            search,
            r"loss_ce is nan, first in the output of 'stem[\w.]*' \(\w+\), whose input is not",
        ),
        (detector, r"loss_rpn_cls is nan.* first in the output of 'backbone.bottom_up.stem[\w.]*"),
    ],
)
def test_what_cannot_be_skipped_is_explained(
    make: Callable[[Path, Path], Trainer],
    layer: str,
    images: Path,
    tiny_coco: Path,
    tmp_path: Path,
) -> None:
    trainer = make(images, tmp_path)
    poison(trainer, 1)
    (hook,) = (hook for hook in trainer._hooks if isinstance(hook, SkipNonFinite))
    hook.limit = 0
    with pytest.raises(NonFiniteError, match=rf"at iteration 1, and 0 steps before .*{layer}"):
        trainer.train()
