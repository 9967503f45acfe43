"""One optimizer for weights and thresholds, and MnasNet's schedule."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from detectron2.config import CfgNode, get_cfg

from backbones import UserError
from backbones.paths import config_path
from search.classification.optimizer import (
    StaircaseDecay,
    build_lr_scheduler,
    build_optimizer,
    parameter_groups,
    schedule,
)
from search.config import add_search_config
from search.space import SearchSpace
from search.supernets.single_path import Supernet


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    add_search_config(cfg)
    cfg.merge_from_file(str(config_path("search", "imagenet_pixel1_80ms.yaml")))
    return cfg


@pytest.fixture(scope="module")
def supernet(space: SearchSpace) -> Supernet:
    slim = dataclasses.replace(space, expansions=(1, 2))
    return Supernet(slim, 2)


def test_no_decay_on_norms_biases_and_thresholds(cfg: CfgNode, supernet: Supernet) -> None:
    decayed, plain, thresholds = parameter_groups(cfg, supernet)
    assert decayed["weight_decay"] == 1e-5
    assert plain["weight_decay"] == thresholds["weight_decay"] == 0
    assert decayed["lr"] == plain["lr"] == cfg.SOLVER.BASE_LR
    assert thresholds["lr"] == 10 * cfg.SOLVER.BASE_LR
    own = set(map(id, supernet.thresholds.parameters()))
    assert own  # one tensor, of all layers
    assert set(map(id, thresholds["params"])) == own
    others = [p for p in supernet.parameters() if id(p) not in own]
    assert list(map(id, decayed["params"])) == [id(p) for p in others if p.dim() > 1]
    assert list(map(id, plain["params"])) == [id(p) for p in others if p.dim() == 1]
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.25
    assert [group["weight_decay"] for group in parameter_groups(cfg, supernet)] == [1e-5, 0.25, 0]


def test_what_does_not_learn_has_no_group(cfg: CfgNode) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 4))
    model[0].requires_grad_(False)
    decayed, plain = parameter_groups(cfg, model)
    assert decayed["params"] == [model[1].weight]
    assert plain["params"] == [model[1].bias]


def test_sgd_has_no_epsilon(cfg: CfgNode) -> None:
    """Timm's takes none: one step on one weight, with Nesterov's momentum, by hand."""
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR = "sgd", 0.1
    model = torch.nn.Linear(1, 1, bias=False)
    before = float(model.weight.detach())
    optimizer = build_optimizer(cfg, model)
    (2 * model.weight).sum().backward()
    optimizer.step()
    gradient = 2 + 1e-5 * before
    assert float(model.weight.detach()) == pytest.approx(before - 0.1 * 1.9 * gradient)
    assert "eps" not in optimizer.defaults


def test_the_papers_optimizer(cfg: CfgNode, supernet: Supernet) -> None:
    optimizer = build_optimizer(cfg, supernet)
    assert type(optimizer).__name__ == "RMSpropTF"
    settings = optimizer.param_groups[0]
    assert (settings["alpha"], settings["momentum"], settings["eps"]) == (0.9, 0.9, 1e-3)
    assert optimizer.param_groups[0]["lr"] == 0.064


@pytest.mark.parametrize(("name", "fused"), [("adamw", True), ("sgd", True), ("rmsproptf", None)])
def test_fused_on_a_gpu_where_pytorch_can(cfg: CfgNode, name: str, fused: bool | None) -> None:
    """Timm's own optimizers have no such option."""
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.AMP.ENABLED = name, False
    for cfg.MODEL.DEVICE, expected in (("cuda", fused), ("cpu", None)):
        optimizer = build_optimizer(cfg, torch.nn.Linear(2, 2))
        assert {group.get("fused") for group in optimizer.param_groups} == {expected}


def test_mnasnet_schedule(cfg: CfgNode) -> None:
    """Linear warm-up of 5 epochs, then × 0.97 every 2.4 epochs, by TensorFlow's formula."""
    cfg.SOLVER.DECAY, cfg.SOLVER.WARMUP_EPOCHS, cfg.CLASSIFICATION.EPOCHS = (
        "exponential",
        5.0,
        350.0,
    )
    factor = schedule(cfg)
    for epoch in (5.1, 6, 50, 123, 349, 350):
        assert factor(epoch / 350) == pytest.approx(0.97 ** (epoch // 2.4))
    assert factor(0.0) == pytest.approx(0.1, rel=1e-3)
    assert factor(0.0) < factor(2.5 / 350) < factor(4.9 / 350)
    cfg.SOLVER.WARMUP_FACTOR = 0.3
    assert schedule(cfg)(0.0) == pytest.approx(0.3, rel=1e-3)
    cfg.SOLVER.WARMUP_EPOCHS = 350.0
    with pytest.raises(UserError, match=r"WARMUP_EPOCHS is 350; expected less than .* is 350"):
        schedule(cfg)


def test_steps_of_the_staircase_are_not_lost_to_rounding() -> None:
    """49 decays in 49 steps: 1 / 49 · 49 is less than 1 in double precision."""
    decay = StaircaseDecay(49 * 2.4)
    for step in range(50):
        assert decay(step / 49) == pytest.approx(0.97**step)


@pytest.mark.parametrize("decay", ["cosine", "exponential"])
def test_scheduler_moves_all_groups_together_to_the_end(cfg: CfgNode, decay: str) -> None:
    """The hook asks for a factor after the last iteration, too."""
    cfg.SOLVER.DECAY, cfg.CLASSIFICATION.EPOCHS = decay, 30.0
    weight, threshold = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD(
        [{"params": [weight], "lr": 1.0}, {"params": [threshold], "lr": 10.0}], lr=1.0
    )
    scheduler = build_lr_scheduler(cfg, optimizer, max_iter=100)
    for step in range(100):
        optimizer.step()
        scheduler.step()
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(10 * first)
        expected = {
            "cosine": 0.5 * (1 + math.cos(math.pi * (step + 1) / 100)),
            "exponential": 0.97 ** ((step + 1) // 8),  # 2.4 of 30 epochs are 8 of 100 steps
        }[decay]
        warming_up = 30 * (step + 1) / 100 < cfg.SOLVER.WARMUP_EPOCHS
        assert first < expected if warming_up else first == pytest.approx(expected)


def test_unknown_names(cfg: CfgNode, supernet: Supernet) -> None:
    cfg.SOLVER.OPTIMIZER = "rmsprop_tf2"
    with pytest.raises(UserError, match=r"unknown SOLVER.OPTIMIZER 'rmsprop_tf2'"):
        build_optimizer(cfg, supernet)
    cfg.SOLVER.DECAY = "step"
    with pytest.raises(UserError, match=r"unknown SOLVER.DECAY 'step'"):
        schedule(cfg)
