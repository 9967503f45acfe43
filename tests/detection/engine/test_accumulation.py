from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from backbones import UserError
from detection.data.loader import BatchesByAspectRatio
from detection.engine.accumulation import detector_step, forward_passes, images_per_pass
from detection.engine.precision import Precision
from detection.engine.sampler import ResumableSampler
from detection.engine.trainer import wrap_ddp

SINGLE = Precision("cpu")


def _processes(monkeypatch: pytest.MonkeyPatch, rank: int, count: int) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: count)
    monkeypatch.setattr(comm, "get_rank", lambda: rank)


@pytest.mark.parametrize(
    ("images", "passes", "processes", "expected"),
    [
        (1024, 1, 1, 1024),
        (1024, 8, 1, 128),
        (1024, 4, 8, 32),
        (2, 3, 1, "SOLVER.IMS_PER_BATCH is 2; expected a multiple of 3: the 1 processes, by S"),
        (10, 1, 4, "SOLVER.IMS_PER_BATCH is 10; expected a multiple of the 4 processes"),
        (8, 2, 8, "SOLVER.IMS_PER_BATCH is 8; expected a multiple of 16: the 8 processes, by "),
        (0, 1, 1, "SOLVER.IMS_PER_BATCH is 0"),
        (8, 0, 1, "SOLVER.ACCUMULATE is 0; expected the forward passes of a step, 1 or more"),
    ],
)
def test_images_of_a_pass(
    monkeypatch: pytest.MonkeyPatch,
    tiny_cfg: CfgNode,
    images: int,
    passes: int,
    processes: int,
    expected: int | str,
) -> None:
    _processes(monkeypatch, 0, processes)
    tiny_cfg.SOLVER.IMS_PER_BATCH, tiny_cfg.SOLVER.ACCUMULATE = images, passes
    if isinstance(expected, int):
        assert images_per_pass(tiny_cfg) == expected
    else:
        with pytest.raises(UserError) as caught:
            images_per_pass(tiny_cfg)
        assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize(("processes", "passes"), [(2, 1), (1, 4), (2, 2), (4, 2)])
def test_the_images_of_a_step_are_shared(
    monkeypatch: pytest.MonkeyPatch, processes: int, passes: int, grouping: bool
) -> None:
    """Each process has another part, and all of them together what one process has alone."""
    wide = [index % 3 == 0 for index in range(30)] if grouping else None

    def batches(skip: int = 0, shares: int = passes) -> list[list[int]]:
        made = BatchesByAspectRatio(ResumableSampler(30, seed=4, part=(0, 1)), wide, 16, shares)
        made.skip = skip
        return list(islice(made, 3 * shares))

    whole = batches(shares=1)
    for skip in (0, 2):
        parts: list[list[int]] = [[], [], []]
        for rank in range(processes):
            _processes(monkeypatch, rank, processes)
            own = batches(skip)
            assert {len(batch) for batch in own} == {16 // (processes * passes)}
            for number, batch in enumerate(own):
                parts[number // passes] += batch
        _processes(monkeypatch, 0, 1)
        expected = batches(skip, 1)
        assert [sorted(part) for part in parts] == [sorted(batch) for batch in expected]
        assert expected[: 3 - skip] == whole[skip:]


def test_processes_exchange_gradients_in_the_last_pass(tmp_path: Path) -> None:
    """One process is a group too: what ``DistributedDataParallel`` is told is to be seen."""
    model = nn.Linear(2, 1)
    assert list(forward_passes(model, 3)) == [0, 1, 2]
    dist.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        parallel: Any = nn.parallel.DistributedDataParallel(model)
        assert wrap_ddp(model) is model
        told = [parallel.require_backward_grad_sync for _ in forward_passes(parallel, 3)]
    finally:
        dist.destroy_process_group()
    assert told == [False, False, True]


class _Detector(nn.Module):
    """Two losses, means over images; the second where the first image is positive alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        losses = {"loss_a": (images @ self.weight).pow(2).mean()}
        if images[0, 0] > 0:
            losses["loss_b"] = self.weight.abs().sum()
        return losses


def _step(batches: list[Tensor], passes: int, detector: nn.Module) -> dict[str, float]:
    trainer = SimpleTrainer(detector, batches, torch.optim.SGD(detector.parameters(), lr=0.1))
    with EventStorage() as storage:
        detector_step(trainer, SINGLE, SINGLE.scaler(), passes)
        return {name: value for name, (value, _) in storage.latest().items()}


def test_a_step_of_several_passes_is_that_of_their_batch() -> None:
    torch.manual_seed(0)
    images = torch.rand(6, 2)
    one, several, theirs = _Detector(), _Detector(), _Detector()
    alone = _step([images], 1, one)
    found = _step(list(images.chunk(3)), 3, several)
    torch.testing.assert_close(several.weight, one.weight)
    for name in ("loss_a", "loss_b", "total_loss"):
        assert found[name] == pytest.approx(alone[name])
    # Detectron2's own step, of one pass
    trainer = SimpleTrainer(theirs, [images], torch.optim.SGD(theirs.parameters(), lr=0.1))
    with EventStorage():
        trainer.run_step()
    assert torch.equal(one.weight, theirs.weight)


def test_a_loss_that_a_pass_lacks_is_none_in_its_mean() -> None:
    images = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    found = _step(list(images.split(1)), 2, _Detector())
    assert found["loss_b"] == pytest.approx(1.5)
    assert found["total_loss"] == pytest.approx(1.0 + 1.5)
