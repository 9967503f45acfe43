"""A step that loss scaling skips moves no weight, no schedule and no λ; a resume knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn

from detection.engine.precision import Precision, StepScaler
from search.classification.classifier import ClassifierTrainer
from search.config import load_search_config
from search.runs.classification import SearchTrainer
from search.runs.detector import DetectorSearchTrainer
from search.runs.run import check_search
from tests.search.conftest import SHORT, interrupt_at, make_cfg
from tests.tiny_coco import TINY_MODEL

Trainer = SearchTrainer | ClassifierTrainer | DetectorSearchTrainer
STEPS = 8


@pytest.fixture(autouse=True)
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss scaling as in float16, which is for GPUs."""
    monkeypatch.setattr(Precision, "scaler", lambda self: StepScaler("cpu"))


@dataclass(frozen=True)
class Moment:
    """What a skipped step must not move."""

    weights: list[Tensor]
    averages: list[Tensor]
    rates: list[float]
    tradeoff: str
    progress: float

    def differences(self, other: Moment) -> set[str]:
        return {
            name for name, value in vars(self).items() if not _equal(value, getattr(other, name))
        }


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) and a and isinstance(a[0], Tensor):
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def moment(trainer: Trainer) -> Moment:
    ema = getattr(trainer, "ema", None)
    model: nn.Module = trainer.model
    return Moment(
        [p.detach().clone() for p in model.parameters()],
        [p.detach().clone() for p in ema.module.parameters()] if ema else [],
        [group["lr"] for group in trainer.optimizer.param_groups],
        # not a number at the start, which is equal to nothing
        repr(trainer.tradeoff.state_dict()) if hasattr(trainer, "tradeoff") else "",
        trainer.progress,
    )


def watched(trainer: Trainer, infinite: set[int]) -> list[Moment]:
    """Gradients are infinite in these iterations; a moment before every step is recorded."""
    weight = next(p for p in trainer.model.parameters() if p.requires_grad and p.dim() > 1)
    weight.register_hook(lambda grad: grad * torch.inf if trainer.iter in infinite else grad)
    moments: list[Moment] = []
    step = trainer.run_step

    def run_step() -> None:
        moments.append(moment(trainer))
        step()

    trainer.run_step = run_step  # type: ignore[method-assign]
    return moments


def search(images: Path, folder: Path) -> SearchTrainer:
    seed_all_rng(0)
    options = ("CLASSIFICATION.EPOCHS", "2.0", *SHORT)
    return SearchTrainer(make_cfg("search/digits_small.yaml", images, folder, *options))


def classifier(images: Path, folder: Path) -> ClassifierTrainer:
    seed_all_rng(0)
    options = ("MODEL.SPNAS.ARCH", "mnasnet_b1", "MODEL.SPNAS.WIDTH_MULT", "0.25")
    options += ("CLASSIFICATION.EMA_DECAY", "0.9", "CLASSIFICATION.EPOCHS", "2.0", *SHORT)
    return ClassifierTrainer(make_cfg("classification/digits.yaml", images, folder, *options))


BUILD = pytest.mark.parametrize("build", [search, classifier])


@BUILD
def test_nothing_moves(
    images: Path, tmp_path: Path, build: Callable[[Path, Path], SearchTrainer | ClassifierTrainer]
) -> None:
    trainer = build(images, tmp_path)
    infinite = {0, 3, 4}
    moments = watched(trainer, infinite)
    trainer.train()
    assert trainer.scaler.skipped == 3
    moved = {"weights", "rates", "progress"} | ({"averages"} if trainer.ema else set())
    ever: set[str] = set()
    for iteration, (before, after) in enumerate(pairwise(moments)):
        changed = before.differences(after)
        if iteration in infinite:
            assert not changed, iteration
        else:
            assert moved <= changed, iteration
            assert after.progress == pytest.approx(before.progress + 1 / STEPS)
            ever |= changed
    assert ("tradeoff" in ever) is isinstance(trainer, SearchTrainer)
    assert len(moments) == STEPS


@BUILD
def test_a_resumed_run_knows_of_them(
    images: Path, tmp_path: Path, build: Callable[[Path, Path], SearchTrainer | ClassifierTrainer]
) -> None:
    infinite = {1, 2, 5}
    whole = build(images, tmp_path / "whole")
    expected = watched(whole, infinite)
    whole.train()
    stopped = build(images, tmp_path / "parts")
    watched(stopped, infinite)
    interrupt_at(stopped, 4)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = build(images, tmp_path / "parts")
    found = watched(resumed, infinite)
    resumed.resume_or_load(resume=True)
    assert (resumed.start_iter, resumed.scaler.skipped) == (4, 2)
    resumed.train()
    assert resumed.scaler.skipped == 3
    for before, after in zip(expected[4:], found, strict=True):
        assert not before.differences(after)
    last, again = moment(whole), moment(resumed)
    assert not last.differences(again)


def test_a_search_on_a_detector(tiny_coco: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    opts = [
        *(*TINY_MODEL, "DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "('tiny_val',)"),
        *("SOLVER.MAX_ITER", "8", "SEARCH.LATENCY_TABLE", "pixel1"),
        *("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "bfloat16"),
        *("SEARCH.DEPLOY_SIZE", "[224, 224]", "SEARCH.TARGET", "80.0"),
        *("OUTPUT_DIR", str(tmp_path / "run")),
    ]
    cfg = load_search_config("search/mask_rcnn_digits.yaml", opts)
    check_search(cfg)
    trainer = DetectorSearchTrainer(cfg)
    moments = watched(trainer, {0, 2})
    interrupt_at(trainer, 4)
    runtimes: list[tuple[float, float]] = []
    trainer.runtime_model.register_forward_hook(
        lambda model, arguments, runtime: runtimes.append(
            (float(runtime.detach()), exact(trainer, arguments[0]))
        )
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    changes = [a.differences(b) for a, b in pairwise(moments)]
    moved = {"weights", "rates", "tradeoff", "progress"}
    assert changes == [set(), moved, set()]
    assert trainer.scaler.skipped == 2
    # in bfloat16 they would be off by up to half a percent
    assert runtimes
    for found, expected in runtimes:
        assert found == pytest.approx(expected, rel=1e-5)


def exact(trainer: DetectorSearchTrainer, decisions: Any) -> float:
    """In single precision, whatever the context."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return float(trainer.runtime_model.forward(decisions))
