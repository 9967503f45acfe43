from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter, JSONWriter
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from backbones.errors import UserError
from detection.engine.checkpoint import Checkpointer
from detection.engine.checkpoint_files import last_iteration
from detection.engine.sampler import ResumableSampler
from detection.engine.trainer import RunTrainer
from search.studies.kills.differences import differences

BATCH = 4


class Run(RunTrainer):
    """Dropout, shuffled data, and noise from all three generators."""

    def __init__(self, folder: Path, max_iter: int, **kwargs: Any) -> None:
        seed_all_rng(3)
        model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 2))
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        self.second = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        super().__init__(
            model,
            max_iter=max_iter,
            output_dir=str(folder),
            checkpointables={"optimizer": self.optimizer, "second": self.second},
            **{"log_period": 2, "checkpoint_period": 5, **kwargs},
        )
        # Registered one by one, in no particular order.
        step_lr = torch.optim.lr_scheduler.StepLR
        self.register_hooks([hooks.EvalHook(2, self._evaluate)])
        self.register_hooks([hooks.LRScheduler(self.optimizer, step_lr(self.optimizer, 3, 0.9))])
        self.register_hooks([hooks.LRScheduler(self.second, step_lr(self.second, 2, 0.5))])
        self.losses: list[float] = []
        self.fail_at: int | None = None

    def build_writers(self) -> list[EventWriter]:
        return [JSONWriter(str(Path(self.output_dir) / "metrics.json"))]

    def before_train(self) -> None:
        data = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
        sampler = ResumableSampler(30, seed=1, start=self.start_iter * BATCH)
        loader = DataLoader(TensorDataset(data), batch_size=BATCH, sampler=sampler)
        self._batches: Iterator[list[Tensor]] = iter(loader)
        super().before_train()

    def run_step(self) -> None:
        if self.iter == self.fail_at:
            raise UserError("the data set has a hole")
        (batch,) = next(self._batches)
        noise = random.gauss(0, 0.1) + float(np.random.randn())
        loss = (self.model(batch + noise) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.second.step()
        self.losses.append(loss.item())
        self.storage.put_scalar("loss", loss.item())

    def _evaluate(self) -> dict[str, float]:
        # Like a real evaluation, it draws random numbers (an amount that differs by run).
        random.random()
        torch.rand(len(self.losses))
        return {"accuracy": 0.5}


def _weights(run: RunTrainer) -> list[Tensor]:
    return list(run.model.state_dict().values())


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", 17)
    whole.resume_or_load()
    whole.train()

    first = Run(tmp_path / "parts", 17)
    first.fail_at = 13  # three iterations after the last checkpoint, which was at an evaluation
    with pytest.raises(UserError, match="the data set has a hole"):
        first.train()
    assert first.losses == whole.losses[:13]
    second = Run(tmp_path / "parts", 17)
    second.resume_or_load(resume=True)
    assert second.start_iter == 10
    second.train()

    assert second.losses == whole.losses[10:]
    for a, b in zip(_weights(whole), _weights(second), strict=True):
        assert torch.equal(a, b)
    assert whole.optimizer.param_groups[0]["lr"] == second.optimizer.param_groups[0]["lr"]
    assert whole.second.param_groups[0]["lr"] == second.second.param_groups[0]["lr"] == 0.5**8


def test_metrics_of_the_lost_iterations_stay(tmp_path: Path) -> None:
    first = Run(tmp_path, 17)
    first.fail_at = 13
    with pytest.raises(UserError, match="the data set has a hole"):
        first.train()
    second = Run(tmp_path, 17)
    second.resume_or_load(resume=True)
    second.train()
    losses = [line["iteration"] for line in _lines(tmp_path) if "loss" in line]
    assert losses == [1, 3, 5, 7, 9, 11, 12, 11, 13, 15, 16]
    assert _lines(tmp_path)[-1]["accuracy"] == 0.5


def test_every_stateful_hook_is_saved(tmp_path: Path) -> None:
    run = Run(tmp_path, 5)
    run.train()
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    states = content["trainer"]["hooks"]
    assert {name: state["step_size"] for name, state in states.items()} == {
        "LRScheduler": 3,
        "LRScheduler#2": 2,
    }
    assert content["trainer"]["iteration"] == 4
    assert len(content["trainer"]["random_states"]) == 1


def test_hooks_run_in_detectron2s_order(tmp_path: Path) -> None:
    class Extra(HookBase):
        pass

    run = Run(tmp_path, 3)
    run.register_hooks([Extra(), None])
    run.train()
    assert [type(hook).__name__ for hook in run._hooks] == [
        "IterationTimer",
        "LRScheduler",
        "LRScheduler",
        "Extra",
        "PeriodicCheckpointer",
        "EvalHook",
        "UnreadableHook",
        "MetricsHook",
    ]


def test_a_complete_run_is_left_alone(tmp_path: Path, log_of: Callable[[str], list[str]]) -> None:
    Run(tmp_path, 5).train()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    lines = log_of("detection.engine.resumable")
    again = Run(tmp_path, 5)
    again.resume_or_load(resume=True)
    again.train()
    assert again.losses == []
    assert "INFO: All 5 iterations are done: nothing to train" in lines
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_resume_without_a_checkpoint_starts(tmp_path: Path) -> None:
    run = Run(tmp_path, 3)
    run.resume_or_load(resume=True)
    run.train()
    assert len(run.losses) == 3
    assert last_iteration(tmp_path) == 2


class Judged(Run):
    """Remembers after how many steps it was evaluated."""

    def _evaluate(self) -> dict[str, float]:
        self.evaluated = [*getattr(self, "evaluated", []), len(self.losses)]
        return super()._evaluate()


@pytest.mark.parametrize(("fail_at", "expected"), [(2, [2]), (3, [2]), (None, [2, 4])])
def test_a_run_that_fails_is_not_evaluated(
    tmp_path: Path, fail_at: int | None, expected: list[int]
) -> None:
    """In its last step neither, where Detectron2 takes it for complete."""
    run = Judged(tmp_path, 4)
    run.fail_at = fail_at
    with contextlib.nullcontext() if fail_at is None else pytest.raises(UserError, match="a hole"):
        run.train()
    assert run.evaluated == expected


def test_old_checkpoints_go_also_after_resuming(tmp_path: Path) -> None:
    first = Run(tmp_path, 12, checkpoint_period=2, max_to_keep=2)
    first.fail_at = 7
    with pytest.raises(UserError, match="the data set has a hole"):
        first.train()
    for name in ("backbone.pth", "model_best.pth"):
        (tmp_path / name).touch()
    second = Run(tmp_path, 12, checkpoint_period=2, max_to_keep=2)
    second.resume_or_load(resume=True)
    second.train()
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "backbone.pth",
        "model_0000009.pth",
        "model_0000011.pth",
        "model_best.pth",
        "model_final.pth",
    ]


class Killed(BaseException):
    """What no code of a run handles."""


def kill_at(call: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the process, so to say, where it is about to save, to tag or to remove a checkpoint."""
    owner = os if call == "remove" else Checkpointer
    function = getattr(owner, call)

    def killed(*args: Any, **kwargs: Any) -> Any:
        if Path(args[-1]).name == name:
            raise Killed
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, call, killed)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("tag_last_checkpoint", "model_0000005.pth"),
        ("remove", "model_0000005.pth"),
        ("remove", "model_0000007.pth"),
        ("tag_last_checkpoint", "model_0000011.pth"),
        ("save", "model_final"),
        ("tag_last_checkpoint", "model_final.pth"),
    ],
)
def test_checkpoints_of_a_run_that_was_killed_between_two_of_them(
    tmp_path: Path, call: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A longer one than before, so that its final checkpoint is there, but not of this length."""

    def run(folder: Path, max_iter: int = 12) -> Run:
        found = Run(folder, max_iter, checkpoint_period=2, max_to_keep=2)
        found.resume_or_load(resume=True)
        return found

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        run(folder, 3).train()
    run(whole).train()
    killed = run(parts)
    killed.after_train = lambda: None  # type: ignore[method-assign]
    with monkeypatch.context() as patch:
        kill_at(call, name, patch)
        with pytest.raises(Killed):
            killed.train()
    run(parts).train()
    found = [line for line in differences(whole, parts) if not line.startswith("metrics.json")]
    assert found == []
    assert last_iteration(parts) == 11


def test_user_errors_are_not_logged_as_crashes(
    tmp_path: Path, log_of: Callable[[str], list[str]]
) -> None:
    lines = log_of("detectron2.engine.train_loop")
    run = Run(tmp_path, 3)
    run.fail_at = 1
    with pytest.raises(UserError, match="hole"):
        run.train()
    assert not [line for line in lines if line.startswith("ERROR")]


def test_bugs_are_logged_as_crashes(tmp_path: Path, log_of: Callable[[str], list[str]]) -> None:
    lines = log_of("detectron2.engine.train_loop")
    run = Run(tmp_path, 3)
    del run.optimizer
    with pytest.raises(AttributeError, match="no attribute 'optimizer'"):
        run.train()
    assert [line for line in lines if line.startswith("ERROR")]


def test_another_architecture_cannot_be_resumed(tmp_path: Path) -> None:
    Run(tmp_path, 3).train()
    other = Run(tmp_path, 3)
    other.checkpointer.model = nn.Sequential(nn.Linear(6, 17))
    with pytest.raises(UserError, match="another"):
        other.resume_or_load(resume=True)


def test_default_writers(tmp_path: Path) -> None:
    class Plain(Run):
        build_writers = RunTrainer.build_writers

    run = Plain(tmp_path, 4)
    run.train()
    assert _lines(tmp_path)[-1]["iteration"] == 4
    assert list(tmp_path.glob("events.out.tfevents.*"))
    run.wandb_writer.log_table("AP", ["all"], [[1.0]])  # is ignored
    assert run.wandb_writer.run_id is None


@pytest.mark.parametrize("name", ["max_iter", "log_period", "checkpoint_period", "max_to_keep"])
def test_impossible_counts(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is 0"):
        Run(tmp_path, **{"max_iter": 3, name: 0})
