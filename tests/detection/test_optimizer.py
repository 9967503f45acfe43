"""The optimizers of a detector, and what learns at which rate."""

from __future__ import annotations

import pytest
import torch
from detectron2 import solver
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from torch import nn

from backbones import UserError
from detection.optimizer import build_optimizer, set_apart
from detection.recipe import check_solver

RATE = 0.02


def rates(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, float]:
    """Learning rates by the names of the parameters, each of which is in one group."""
    of = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    assert len(of) == sum(len(group["params"]) for group in optimizer.param_groups)
    return {name: of[id(value)] for name, value in model.named_parameters() if id(value) in of}


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_the_backbone_learns_at_its_own_rate(tiny_cfg: CfgNode, optimizer: str) -> None:
    """And nothing else differs from a training at one rate, a step of the schedule included."""
    node = tiny_cfg.SOLVER
    node.OPTIMIZER, node.BASE_LR, node.BIAS_LR_FACTOR = optimizer, RATE, 2.0
    model = build_model(tiny_cfg)
    plain = build_optimizer(tiny_cfg, model)
    node.BACKBONE_LR_MULT = 0.1
    scaled = build_optimizer(tiny_cfg, model)
    assert type(scaled) is type(plain) is getattr(torch.optim, optimizer)

    expected, found = rates(plain, model), rates(scaled, model)
    assert expected.keys() == found.keys() == dict(model.named_parameters()).keys()
    for name, rate in found.items():
        factor = 0.1 if name.startswith("backbone.bottom_up.") else 1
        assert rate == pytest.approx(factor * expected[name]), name
    assert {"backbone.fpn_lateral2.bias", "backbone.bottom_up.stem.conv.weight"} <= found.keys()

    def options(of: torch.optim.Optimizer) -> dict[int, dict[str, object]]:
        return {
            id(value): {k: v for k, v in group.items() if k not in ("params", "lr", "initial_lr")}
            for group in of.param_groups
            for value in group["params"]
        }

    assert options(scaled) == options(plain)
    build_lr_scheduler(tiny_cfg, scaled)  # a warm-up, from WARMUP_FACTOR times the rate
    for name, rate in rates(scaled, model).items():
        assert rate == pytest.approx(node.WARMUP_FACTOR * found[name]), name


@pytest.mark.parametrize("bias_decay", [None, 1e-4])
def test_sgd_is_detectron2s(tiny_cfg: CfgNode, bias_decay: float | None) -> None:
    """The groups as well, which its checkpoints have: by default, biases have none of their own."""
    tiny_cfg.SOLVER.WEIGHT_DECAY, tiny_cfg.SOLVER.WEIGHT_DECAY_BIAS = 1e-4, bias_decay
    tiny_cfg.SOLVER.NESTEROV = True
    model = build_model(tiny_cfg)

    def groups(optimizer: torch.optim.Optimizer) -> list[dict[str, object]]:
        return [{**g, "params": [id(p) for p in g["params"]]} for g in optimizer.param_groups]

    assert groups(build_optimizer(tiny_cfg, model)) == groups(
        solver.build_optimizer(tiny_cfg, model)
    )


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_fused_on_a_gpu(tiny_cfg: CfgNode, optimizer: str) -> None:
    tiny_cfg.SOLVER.OPTIMIZER, tiny_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = optimizer, True
    model = build_model(tiny_cfg)
    assert not any(g.get("fused") for g in build_optimizer(tiny_cfg, model).param_groups)
    tiny_cfg.MODEL.DEVICE = "cuda"
    assert all(g["fused"] for g in build_optimizer(tiny_cfg, model).param_groups)


def test_gradients_are_clipped_with_a_rate_of_the_backbone(tiny_cfg: CfgNode) -> None:
    node = tiny_cfg.SOLVER
    node.MOMENTUM, node.WEIGHT_DECAY, node.WEIGHT_DECAY_NORM = 0.0, 0.0, 0.0
    node.BASE_LR, node.BACKBONE_LR_MULT = RATE, 0.5
    node.CLIP_GRADIENTS.ENABLED, node.CLIP_GRADIENTS.CLIP_VALUE = True, 3.0
    model = build_model(tiny_cfg)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for value in model.parameters():
        value.grad = torch.full_like(value, 100.0)
    build_optimizer(tiny_cfg, model).step()
    for name, value in model.named_parameters():
        factor = 0.5 if name.startswith("backbone.bottom_up.") else 1
        expected = before[name] - factor * RATE * 3
        torch.testing.assert_close(value.detach(), expected, msg=name)


def test_a_backbone_without_a_pyramid_is_scaled_whole(tiny_cfg: CfgNode) -> None:
    model = nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 1), "head": nn.Conv2d(4, 2, 1)})
    tiny_cfg.SOLVER.BASE_LR, tiny_cfg.SOLVER.BACKBONE_LR_MULT = RATE, 0.5
    found = rates(build_optimizer(tiny_cfg, model), model)
    parts = ("backbone", "head")
    assert found == {
        f"{part}.{name}": RATE * factor
        for part, factor in zip(parts, (0.5, 1), strict=True)
        for name in ("weight", "bias")
    }


def test_a_model_without_a_backbone_is_refused(tiny_cfg: CfgNode) -> None:
    tiny_cfg.SOLVER.BACKBONE_LR_MULT = 0.5
    with pytest.raises(UserError, match=r"BACKBONE_LR_MULT is 0.5, but the model 'Gen.*set it to"):
        build_optimizer(tiny_cfg, nn.Linear(2, 2))


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_factors_are_refused(tiny_cfg: CfgNode, factor: float) -> None:
    tiny_cfg.SOLVER.BACKBONE_LR_MULT = factor
    with pytest.raises(UserError, match=rf"SOLVER.BACKBONE_LR_MULT is {factor}; expected a factor"):
        check_solver(tiny_cfg)


def test_groups_keep_their_options_when_parameters_leave_them() -> None:
    a, b, c = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    optimizer = torch.optim.SGD([{"params": [a, b], "lr": 1.0}, {"params": [c], "lr": 2.0}])
    taken = set_apart(optimizer, [b, c])
    assert [(group["lr"], group["params"]) for group in taken] == [(1.0, [b]), (2.0, [c])]
    assert [(group["lr"], group["params"]) for group in optimizer.param_groups] == [(1.0, [a])]
