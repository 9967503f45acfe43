"""Steps whose losses or gradients are not finite: what they leave, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import get_cfg
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter, JSONWriter
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

import detection
from backbones.errors import UserError
from detection.engine.diagnosis import first_nonfinite
from detection.engine.nonfinite import NonFiniteError, SkipNonFinite, checked_limit
from detection.engine.selection import Kept
from detection.engine.trainer import RunTrainer, wrap_ddp
from search.studies.kills.differences import first_difference

ROOT = Path(__file__).parents[3]
STEPS = 8


def network() -> nn.Module:
    seed_all_rng(3)
    layers = (nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return nn.Sequential(*layers)


def batches(count: int = STEPS, rank: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rank)
    return [torch.randn(4, 6, generator=generator) for _ in range(count)]


class Run(RunTrainer):
    """The square of the outputs, and a second loss."""

    def __init__(
        self,
        folder: Path,
        data: list[Tensor],
        optimizer: str = "adamw",
        limit: int = 3,
        scaler: Any = None,
    ) -> None:
        self.data = data
        model = wrap_ddp(network())
        self.optimizer = create_optimizer_v2(model, opt=optimizer, lr=0.01, momentum=0.9)
        self.scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
        super().__init__(
            model,
            max_iter=len(data),
            output_dir=str(folder),
            checkpointables={"optimizer": self.optimizer, "scaler": self.scaler},
            checkpoint_period=2,
        )
        self.skipping = SkipNonFinite(limit, self.model, self.optimizer)
        self.register_hooks([self.skipping])
        self.poisons: dict[int, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {}

    def run_step(self) -> None:
        batch = self.data[self.iter]
        output = self.model(batch)
        losses = {"loss_a": output.square().mean(), "loss_b": output.abs().mean()}
        losses = self.poisons.get(self.iter, lambda found: found)(losses)
        self.optimizer.zero_grad()
        total = self.skipping.total(losses, lambda: self.model(batch))
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def build_writers(self) -> list[EventWriter]:
        return [JSONWriter(f"{self.output_dir}/metrics.json")]

    def state(self) -> dict[str, Any]:
        return {
            "model": self.checkpointer.model.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
        }


def with_nan(at: int, value: float = float("nan")) -> list[Tensor]:
    data = batches()
    data[at][1, 2] = value
    return data


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsproptf"])
@pytest.mark.parametrize("at", [0, 3])
def test_a_skipped_step_leaves_nothing(
    tmp_path: Path, optimizer: str, at: int, on_gpu: bool
) -> None:
    """As of a run without that batch: weights, momenta, and the statistics of batch norm.

    The second time as on a GPU, which decides without the host.
    """
    whole = Run(tmp_path / "whole", [b for i, b in enumerate(batches()) if i != at], optimizer)
    whole.train()
    skipping = Run(tmp_path / "skipping", with_nan(at), optimizer)
    skipping.skipping._on_gpu = on_gpu
    before = network().state_dict()
    skipping.train()
    assert skipping.skipping.skipped == 1
    found, expected = skipping.state(), whole.state()
    if on_gpu and at and optimizer == "adamw":  # whose steps, if not fused, are counted on the host
        for state in (*found["optimizer"].values(), *expected["optimizer"].values()):
            assert state.pop("step") in (7, 8)
        torch.testing.assert_close(found["model"], expected["model"], rtol=0.1, atol=0.01)
    else:
        assert first_difference(found, expected) is None
    assert first_difference(before, found["model"]) is not None


def test_the_host_reads_nothing_while_steps_are_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only at its first step, which makes the optimizer's state, and every 20th."""
    reads: list[int] = []
    run = Run(tmp_path, batches(45))
    run.skipping._on_gpu = True

    def read(value: Tensor) -> Any:
        reads.append(run.iter)
        return value.item()

    monkeypatch.setattr("detection.engine.nonfinite._read", read)
    run.checkpointer.save = lambda *args, **kwargs: None
    run.train()
    assert reads == [0, 19, 39, 44]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_was_set_aside_comes_back(dtype: torch.dtype) -> None:
    """Bit for bit, whatever is there by then, and nothing changes where the flag is not set."""
    torch.manual_seed(0)
    good = [torch.randn(3, 4, 2, 2).to(dtype), torch.tensor(7), torch.randn(()).to(dtype)]
    good[0] = good[0].to(memory_format=torch.channels_last)
    for where in (True, False):
        now = [tensor.clone() for tensor in good]
        kept = Kept(now)
        kept.take()
        now[0].fill_(float("nan"))[0, 1] = float("-inf")
        now[1].add_(3)
        now[2].fill_(float("inf"))
        bad = [tensor.clone() for tensor in now]
        kept.put_back(torch.tensor(where))
        assert first_difference(now, good if where else bad) is None


LOSSES: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "infinite": lambda found: {**found, "loss_b": found["loss_b"] / 0},
    # of weights that have no part in it
    "a constant": lambda found: {**found, "loss_b": torch.tensor(float("nan"))},
    "their sum alone": lambda found: {n: loss * 0 + 3e38 for n, loss in found.items()},
    "a gradient": lambda found: {**found, "loss_b": (found["loss_b"] * 0).sqrt()},
}


@pytest.mark.parametrize("kind", LOSSES)
def test_whatever_is_not_finite(tmp_path: Path, kind: str) -> None:
    """A loss may be so without its gradient, and a gradient without its loss."""
    whole = Run(tmp_path / "whole", [b for i, b in enumerate(batches()) if i != 4])
    whole.train()
    run = Run(tmp_path / "run", batches())
    run.poisons = {4: LOSSES[kind]}
    run.train()
    assert run.skipping.skipped == 1
    assert first_difference(run.state(), whole.state()) is None


def test_a_run_with_too_many_stops_and_says_where(
    tmp_path: Path, log_of: Callable[[str], list[str]]
) -> None:
    lines = log_of("detection.engine.nonfinite")
    data = batches()
    for at in (1, 2, 4, 6):
        data[at][0, 0] = float("nan")
    run = Run(tmp_path, data)
    with pytest.raises(NonFiniteError) as caught:
        run.train()
    message = str(caught.value)
    assert message.startswith(
        "the loss or a gradient is not finite at iteration 6, and 3 steps before it were skipped "
        "(SOLVER.MAX_NONFINITE 3): loss_a is nan, loss_b is nan, first in the output of '0' "
        "(Linear), whose input is not, as the batch is not. Lower SOLVER.BASE_LR"
    )
    assert isinstance(caught.value, UserError) and "\n" not in message
    assert [line.split(" (")[-1] for line in lines] == [f"{n} of at most 3)" for n in (1, 2, 3)]
    assert lines[0].startswith("WARNING: Iteration 1: loss_a is nan, loss_b is nan, the step is")
    # the last checkpoint is good, and knows how many were skipped
    again = Run(tmp_path, data)
    again.resume_or_load(resume=True)
    assert (again.start_iter, again.skipping.skipped) == (6, 3)
    assert all(value.isfinite().all() for value in again.state()["model"].values())
    with pytest.raises(NonFiniteError, match="at iteration 6, and 3 steps"):
        again.train()
    again = Run(tmp_path, data, limit=4)
    again.resume_or_load(resume=True)
    again.train()


def test_a_checkpoint_knows_what_the_host_does_not(tmp_path: Path) -> None:
    """Nor does the first process learn of it, which alone saves."""
    run = Run(tmp_path, with_nan(3))
    run.skipping._on_gpu = True
    known: list[int] = []
    step = run.run_step

    def run_step() -> None:
        known.append(run.skipping.skipped)
        step()

    run.run_step = run_step  # type: ignore[method-assign]
    run.train()
    assert known == [0] * STEPS
    for name in ("model_0000003", "model_0000005", "model_final"):
        content = torch.load(tmp_path / f"{name}.pth", weights_only=True)
        assert content["trainer"]["hooks"] == {"SkipNonFinite": {"skipped": 1}}


def test_no_step_may_be_skipped(tmp_path: Path) -> None:
    run = Run(tmp_path, with_nan(5), limit=0)
    run.skipping._on_gpu = True
    with pytest.raises(NonFiniteError, match="at iteration 5, and 0 steps before it were skipped"):
        run.train()


def test_a_gradient_without_its_loss_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, batches(), limit=0)
    run.poisons = {4: LOSSES["a gradient"]}
    with pytest.raises(NonFiniteError, match=r"are not, nearest to the loss that of '3.bias'"):
        run.train()


def test_the_metrics_say_how_many(tmp_path: Path) -> None:
    run = Run(tmp_path, with_nan(5))
    run.train()
    assert '"nonfinite_steps": 1' in (tmp_path / "metrics.json").read_text()
    Run(tmp_path / "good", batches()).train()
    assert "nonfinite" not in (tmp_path / "good" / "metrics.json").read_text()
    content = torch.load(tmp_path / "good" / "model_final.pth", weights_only=True)
    assert content["trainer"]["hooks"] == {}


@pytest.mark.parametrize("on_gpu", [False, True])
def test_infinite_gradients_of_a_scaled_loss_are_no_fault(tmp_path: Path, on_gpu: bool) -> None:
    """The scaler finds its scale by them; a loss that is not finite counts as ever."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    run = Run(tmp_path, with_nan(6), scaler=scaler)
    run.skipping._on_gpu = on_gpu
    scales: list[float] = []
    step = run.run_step

    def run_step() -> None:
        step()
        scales.append(scaler.get_scale())

    run.run_step = run_step  # type: ignore[method-assign]
    run.data[0] *= 1e3
    run.train()
    assert scales[0] < 1e38 and scales[6] < scales[5]
    assert run.skipping.skipped == 1
    assert all(value.isfinite().all() for value in run.state()["model"].values())


@pytest.mark.parametrize("at", [0, 1, 3])
def test_the_first_layer_that_is_not_finite(at: int) -> None:
    class Odd(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.layer(x)
            return found + torch.tensor(float("inf"))

    model = network()
    model[at] = Odd(model[at])
    (batch, *_) = batches()
    found = first_nonfinite(model, lambda: model(batch))
    assert found == f"first in the output of '{at}' (Odd), whose input is finite"
    with torch.no_grad():
        next(iter(model[3].parameters())).fill_(float("nan"))
    name = "3.layer.weight" if at == 3 else "3.weight"
    assert first_nonfinite(model, lambda: model(batch)) == f"the weights '{name}' are not finite"


def test_the_limit_is_checked() -> None:
    cfg = get_cfg()
    detection.add_spnas_config(cfg)
    assert checked_limit(cfg) == 10
    cfg.SOLVER.MAX_NONFINITE = -1
    with pytest.raises(UserError, match="SOLVER.MAX_NONFINITE is -1; expected"):
        checked_limit(cfg)


def _two_ranks(rank: int, folder: str) -> None:
    """The second process alone has bad batches, of both kinds."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    said = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=4.0)):
        data = batches(STEPS, rank)
        if rank == 1:
            data[2][0, 0] = data[5][0, 0] = float("nan")
        run = Run(Path(folder, "run"), data, limit=1, scaler=scaler)
        run.checkpointer.save = lambda *args, **kwargs: None
        try:
            run.train()
        except NonFiniteError as error:
            said.append(str(error))
        values = [value.double().sum() for value in run.model.module[0].state_dict().values()]
        said.append([float(value) for value in values])
    Path(folder, f"said{rank}").write_text(repr(said))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_processes_skip_the_same_steps_and_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # of libraries, in the new processes
    monkeypatch.syspath_prepend(ROOT)  # for them to find this module
    mp.spawn(_two_ranks, args=(str(tmp_path),), nprocs=2)
    said = [(tmp_path / f"said{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert said[0].count("at iteration 5, and 1 steps before it were skipped") == 2
    assert said[0].count("loss_a is nan, loss_b is nan, first in the output of '0' (Linear)") == 2
    assert "[nan" not in said[0]
