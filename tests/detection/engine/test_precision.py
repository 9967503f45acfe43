"""Mixed precision: types and devices, and steps that loss scaling skips."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import TrainerBase
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from backbones import UserError
from detection import add_spnas_config
from detection.engine import precision
from detection.engine.fused import keep_update_options, update_options
from detection.engine.precision import LRScheduler, Precision, StepScaler

INFINITE = float("inf")


def cfg_of(device: str, dtype: str = "auto", enabled: bool = True) -> CfgNode:
    cfg = get_cfg()
    add_spnas_config(cfg)
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.DTYPE, cfg.SOLVER.AMP.ENABLED = device, dtype, enabled
    return cfg


@pytest.fixture
def old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turing, which has float16 alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")


@pytest.mark.parametrize(
    ("device", "dtype", "found"),
    [
        ("cuda", "auto", torch.float16),
        ("cuda:1", "float16", torch.float16),
        ("cuda", "bfloat16", torch.bfloat16),
        ("cpu", "auto", None),  # which is faster there
        ("cpu", "bfloat16", torch.bfloat16),
    ],
)
def test_types(device: str, dtype: str, found: torch.dtype | None) -> None:
    chosen = Precision.of(cfg_of(device, dtype))
    assert (chosen.device, chosen.dtype) == (device.partition(":")[0], found)
    assert Precision.of(cfg_of(device, dtype, enabled=False)).dtype is None


def test_only_float16_scales_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    # else PyTorch would not enable it
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    assert Precision("cuda", torch.float16).scaler().is_enabled()
    assert not Precision("cuda", torch.bfloat16).scaler().is_enabled()
    assert not Precision("cuda").scaler().is_enabled()


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("cpu", "fp16", "SOLVER.AMP.DTYPE is 'fp16'; expected auto, float16, bfloat16"),
        ("cpu", "float16", "is 'float16', but MODEL.DEVICE is 'cpu'; float16 needs a GPU"),
        ("cuda", "bfloat16", r"'bfloat16', which Tesla T4 \(compute capability 7.5\) does not"),
    ],
)
def test_what_cannot_be_computed_in(old_gpu: None, device: str, dtype: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Precision.of(cfg_of(device, dtype))


def test_an_unknown_type_is_refused_while_it_is_not_used() -> None:
    with pytest.raises(UserError, match=r"SOLVER.AMP.DTYPE is 'half'"):
        Precision.of(cfg_of("cpu", "half", enabled=False))


def test_autocast_computes_in_the_type() -> None:
    layer, x = nn.Linear(3, 3), torch.ones(1, 3)
    with Precision("cpu", torch.bfloat16).autocast():
        assert layer(x).dtype is torch.bfloat16
    with Precision("cpu").autocast():
        assert layer(x).dtype is torch.float32


class Run(TrainerBase):
    """Gradients of ones but where ``infinite`` says so."""

    def __init__(self, infinite: set[int], steps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))
        self.optimizer = torch.optim.SGD([self.weight], lr=1.0, momentum=0.9)
        halving = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.5)
        self.scaler, self.infinite, self.steps = StepScaler("cpu"), infinite, steps
        self.register_hooks([LRScheduler(self.scaler, self.optimizer, halving)])

    def run_step(self) -> None:
        self.optimizer.zero_grad()
        factor = INFINITE if self.iter in self.infinite else 1.0
        self.scaler.scale((self.weight * factor).sum()).backward()
        self.scaler.take(self.optimizer)

    def run(self) -> Run:
        self.train(0, self.steps)
        return self


def test_a_skipped_step_moves_nothing() -> None:
    """First, in between and twice in a row: what is left is the run without these steps."""
    run, whole = Run({0, 2, 3}, 7).run(), Run(set(), 4).run()
    assert run.scaler.skipped == 3
    assert whole.scaler.skipped == 0
    assert torch.equal(run.weight, whole.weight)
    assert run.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"] == 0.5**4
    assert run.scaler.get_scale() == whole.scaler.get_scale() / 2**3
    latest = run.storage.latest()
    assert latest["skipped_steps"] == (3, 6)
    assert latest["lr"] == (0.5**3, 6)
    assert run.scaler.taken
    assert not Run({1}, 2).run().scaler.taken


def test_the_rate_is_logged_of_a_skipped_step_too() -> None:
    assert Run({1}, 2).run().storage.latest()["lr"] == (0.5, 1)


def test_the_count_is_kept_in_checkpoints() -> None:
    before, after = Run({0, 1}, 3).run().scaler, StepScaler("cpu")
    after.load_state_dict(before.state_dict())
    assert (after.skipped, after.get_scale()) == (2, before.get_scale())
    after.load_state_dict(torch.amp.GradScaler("cpu").state_dict())  # of an earlier version
    assert after.skipped == 0
    assert StepScaler("cpu", enabled=False).state_dict() == {}


def test_gradients_that_no_scale_makes_finite_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_MOST_SKIPPED", 3)
    assert Run({0, 1, 3, 4}, 6).run().scaler.skipped == 4  # never three in a row
    with pytest.raises(UserError, match=r"3 steps in a row are not finite .* bfloat16"):
        Run({1, 2, 3}, 6).run()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_clipping_sees_gradients_as_they_are(kind: type[torch.optim.Optimizer]) -> None:
    """A fused optimizer takes the scale off within its step, where clipping comes before."""
    clipped = get_cfg()
    clipped.SOLVER.CLIP_GRADIENTS.ENABLED = True
    clipped.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    found = []
    for scaled in (True, False):
        weight = nn.Parameter(torch.zeros(3))
        build = maybe_add_gradient_clipping(clipped, kind)
        optimizer = build([weight], lr=0.1, fused=True)
        scaler = StepScaler("cpu", enabled=scaled)
        for _ in range(2):
            optimizer.zero_grad()
            scaler.scale((weight * torch.tensor([0.1, 0.4, 7.0])).sum()).backward()
            scaler.take(optimizer)
        assert weight.grad is not None
        assert torch.allclose(weight.grad, torch.tensor([0.1, 0.4, 0.5]))
        found.append(weight.detach())
    assert torch.allclose(*found)


@pytest.mark.parametrize(
    ("kind", "precision", "options"),
    [
        (torch.optim.SGD, Precision("cpu"), {}),
        (torch.optim.SGD, Precision("cuda"), {"fused": True}),
        (torch.optim.SGD, Precision("cuda", torch.bfloat16), {"fused": True}),
        (torch.optim.SGD, Precision("cuda", torch.float16), {}),
        (torch.optim.AdamW, Precision("cuda", torch.float16), {"fused": True}),
        (torch.optim.RMSprop, Precision("cuda"), {}),
    ],
)
def test_fused_where_it_can_be(
    kind: type[torch.optim.Optimizer], precision: Precision, options: dict[str, bool]
) -> None:
    assert update_options(kind, precision) == options


def adamw(**options: Any) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.ones(3))
    return weight, keep_update_options(torch.optim.AdamW([weight], lr=0.1, **options))


def steps(weight: nn.Parameter, optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        weight.grad = torch.tensor([1.0, -2.0, 3.0])
        optimizer.step()


def test_a_checkpoint_of_another_device_is_continued() -> None:
    """Fused or not is this machine's matter: neither way does the checkpoint decide it."""
    for first, second in (({}, {"fused": True}), ({"fused": True}, {})):
        weight, optimizer = adamw(**first)
        steps(weight, optimizer, 2)
        other, continued = adamw(**second)
        other.data.copy_(weight.data)
        continued.load_state_dict(optimizer.state_dict())
        assert bool(continued.param_groups[0]["fused"]) is bool(second)
        steps(other, continued, 2)
        steps(weight, optimizer, 2)
        assert torch.allclose(other, weight)
        assert not torch.allclose(weight, torch.ones(3), atol=0.3)


def test_a_checkpoint_of_other_groups_is_refused_as_ever() -> None:
    _, optimizer = adamw()
    groups = [{"params": [nn.Parameter(torch.ones(1))]}, {"params": [nn.Parameter(torch.ones(1))]}]
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(torch.optim.AdamW(groups).state_dict())
