"""Resuming Detectron2's own trainer, and runs of several processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultTrainer, SimpleTrainer, defaults, hooks
from detectron2.solver import build_lr_scheduler
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn

from detection.engine.checkpoint import Checkpointer
from detection.engine.trainer import ResumableTrainer, RunTrainer, wrap_ddp


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.dropout(self.linear(batch), 0.5).square().mean()}


class _Loader:
    def __iter__(self) -> Iterator[Tensor]:
        torch.rand(())  # PyTorch's loader draws the seed of its workers when iteration starts
        generator = torch.Generator().manual_seed(0)
        return iter([torch.randn(8, 4, generator=generator)] * 100)


class Detection(ResumableTrainer, DefaultTrainer):
    """Detectron2's trainer with a model and data that need no data set."""

    losses: list[float]
    fail_at = -1
    settled_at = 0

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        return _Model()

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> _Loader:
        return _Loader()

    def settled(self) -> bool:
        return False

    def after_train(self) -> None:
        super().after_train()
        self.settled_at = self.storage.iter

    def build_hooks(self) -> list[Any]:
        self.checkpointer = Checkpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=self.checkpointer.checkpointables["trainer"]
        )
        return [
            hooks.LRScheduler(),
            hooks.PeriodicCheckpointer(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD),
        ]

    def run_step(self) -> None:
        if self.iter == self.fail_at:
            raise RuntimeError("power cut")
        super().run_step()
        self.losses.append(self.storage.latest()["total_loss"][0])


def _detection(folder: Path) -> Detection:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.OUTPUT_DIR = str(folder)
    cfg.SOLVER.MAX_ITER = 9
    cfg.SOLVER.STEPS = (3, 6)
    cfg.SOLVER.WARMUP_ITERS = 2
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.CHECKPOINT_PERIOD = 4
    seed_all_rng(0)
    trainer = Detection(cfg)
    trainer.losses = []
    return trainer


class _LazyTrainer(SimpleTrainer):
    """The main branch's inner trainer: it makes its iterator when it is first used."""

    _iterator: Any = None

    @property
    def _data_loader_iter(self) -> Any:
        self._iterator = self._iterator or iter(self.data_loader)
        return self._iterator

    @_data_loader_iter.setter
    def _data_loader_iter(self, value: Any) -> None:
        pass


def _main_state_dict(trainer: DefaultTrainer) -> dict[str, Any]:
    state = super(DefaultTrainer, trainer).state_dict()
    return {**state, "_trainer": trainer._trainer.state_dict()}


def _main_load_state_dict(trainer: DefaultTrainer, state: dict[str, Any]) -> None:
    super(DefaultTrainer, trainer).load_state_dict(state)
    trainer._trainer.load_state_dict(state["_trainer"])


@pytest.fixture(params=["installed", "main"])
def _branch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectron2 as it is installed, and with what its main branch does differently."""
    if request.param == "main":
        monkeypatch.setattr(defaults, "SimpleTrainer", _LazyTrainer)
        monkeypatch.setattr(DefaultTrainer, "state_dict", _main_state_dict, raising=False)
        monkeypatch.setattr(DefaultTrainer, "load_state_dict", _main_load_state_dict, raising=False)


@pytest.mark.usefixtures("_branch")
def test_detectron2s_trainer_resumes_exactly(tmp_path: Path) -> None:
    whole = _detection(tmp_path / "whole")
    whole.resume_or_load(resume=False)
    whole.train()
    first = _detection(tmp_path / "parts")
    first.fail_at = 6
    with pytest.raises(RuntimeError, match="power cut"):
        first.train()
    second = _detection(tmp_path / "parts")
    second.resume_or_load(resume=True)
    assert second.start_iter == 4
    second.train()
    assert second.losses == whole.losses[4:]
    assert torch.equal(second.model.linear.weight, whole.model.linear.weight)
    momentum = second.optimizer.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, whole.optimizer.state_dict()["state"][0]["momentum_buffer"])
    assert second.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


def test_detectron2s_trainer_settles_what_is_complete(tmp_path: Path) -> None:
    first = _detection(tmp_path)
    first.train()
    assert first.settled_at == first.finished == 9
    again = _detection(tmp_path)
    again.resume_or_load(resume=True)
    assert again.train() is None
    assert again.losses == []
    assert again.settled_at == again.finished == 9


class DistributedRun(RunTrainer):
    """Two ranks with different random streams and a model in DistributedDataParallel."""

    def __init__(self, folder: str, rank: int) -> None:
        seed_all_rng(5)
        model = wrap_ddp(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)))
        seed_all_rng(5 + rank)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        super().__init__(
            model,
            max_iter=6,
            output_dir=folder,
            checkpointables={"optimizer": self.optimizer},
            checkpoint_period=2,
        )
        self.losses: list[float] = []

    def run_step(self) -> None:
        loss = self.model(torch.randn(4, 3)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())


def _two_ranks(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    whole = DistributedRun(f"{folder}/run", rank)
    whole.train()
    if rank == 0:
        Path(folder, "run", "last_checkpoint").write_text("model_0000001.pth")
    dist.barrier()
    resumed = DistributedRun(f"{folder}/run", rank)
    resumed.resume_or_load(resume=True)
    resumed.train()
    torch.save({"whole": whole.losses, "resumed": resumed.losses}, f"{folder}/losses{rank}.pth")
    dist.barrier()  # neither leaves while the other still talks to it
    dist.destroy_process_group()


@pytest.fixture
def losses_of_two_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, list[float]]]:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # of libraries, in the new processes
    monkeypatch.syspath_prepend(Path(__file__).parents[3])  # for them to find this module
    mp.spawn(_two_ranks, args=(str(tmp_path),), nprocs=2)
    return [torch.load(tmp_path / f"losses{rank}.pth", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
def test_every_rank_continues_its_random_stream(
    losses_of_two_ranks: list[dict[str, list[float]]],
) -> None:
    for losses in losses_of_two_ranks:
        assert losses["resumed"] == losses["whole"][2:]
    assert losses_of_two_ranks[0]["whole"] != losses_of_two_ranks[1]["whole"]
