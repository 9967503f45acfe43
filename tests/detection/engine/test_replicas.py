"""What two processes have to agree on, and the means of what they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from backbones.errors import UserError
from detection.engine.replicas import check_same, mean_over_processes, unite_buffers


class _Norms(nn.Module):
    def __init__(self, rank: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("constant", torch.tensor([0.1, float("-inf")]))
        self.register_buffer("counter", torch.tensor(7 + rank))
        torch.manual_seed(rank)
        self.norm(torch.randn(8, 3) + rank)


def _two_ranks(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    model = _Norms(rank)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    unite_buffers([model])
    found: dict[str, Any] = {
        "before": before,
        "after": dict(model.named_buffers()),
        "mean": mean_over_processes(torch.tensor([1.0 + rank, 3.0])),
        "message": "",
    }
    check_same("the constants", [model.constant])
    try:
        check_same("the numbers", [model.constant, torch.tensor(rank)])
    except UserError as error:
        found["message"] = str(error)
    torch.save(found, f"{folder}/found{rank}.pth")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # of libraries, in the new processes
    monkeypatch.syspath_prepend(Path(__file__).parents[3])  # for them to find this module
    mp.spawn(_two_ranks, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"found{rank}.pth") for rank in (0, 1))
    for name in ("norm.running_mean", "norm.running_var"):
        mean = (first["before"][name] + second["before"][name]) / 2
        assert torch.equal(first["after"][name], second["after"][name])
        torch.testing.assert_close(first["after"][name], mean)
    for name in ("constant", "counter", "norm.num_batches_tracked"):
        assert torch.equal(second["after"][name], first["before"][name])
    assert first["mean"].tolist() == second["mean"].tolist() == [1.5, 3.0]
    for found in (first, second):
        assert found["message"].startswith("the numbers of process 1 are not those of process 0")


def test_one_process_is_left_as_it_is() -> None:
    model = _Norms(0)
    before = [buffer.clone() for buffer in model.buffers()]
    unite_buffers([model])
    check_same("anything", [torch.rand(3)])
    assert all(map(torch.equal, before, model.buffers()))
    assert mean_over_processes(torch.tensor([2.0])).tolist() == [2.0]
