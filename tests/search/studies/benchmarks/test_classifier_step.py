"""Both steps train the same network, by the same optimizer, on the same number of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from backbones.errors import UserError
from search.studies.benchmarks.classifier_step import (
    LABELS,
    classifier_step_report,
    classifier_step_section,
    make_our_step,
    make_timm_step,
)


def trained_by(step: Any) -> Optimizer:
    """The optimizer whose step the call takes."""
    found: list[Optimizer] = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: found.append(optimizer))
    try:
        step()
    finally:
        handle.remove()
    (optimizer,) = found
    return optimizer


def facts(optimizer: Optimizer) -> dict[float, dict[str, Any]]:
    """Of the weights with decay and of those without: how many, and the settings."""
    keys = ("eps", "alpha", "momentum", "centered")
    return {
        group["weight_decay"]: {
            "elements": sum(p.numel() for p in group["params"]),
            "shapes": sorted(tuple(p.shape) for p in group["params"]),
            **{key: group[key] for key in keys},
        }
        for group in optimizer.param_groups
    }


def test_the_steps_are_alike_and_train(tmp_path: Path) -> None:
    ours = trained_by(make_our_step("cpu", 2, 32, "float32", tmp_path))
    step = make_timm_step("cpu", 2, 32, "float32")
    theirs = trained_by(step)
    assert type(ours) is type(theirs)
    assert facts(ours) == facts(theirs)
    weights = [p for group in theirs.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in weights]
    step()
    moved = [not torch.equal(p, old) for p, old in zip(weights, before, strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def test_our_step_is_the_trainers_own(tmp_path: Path) -> None:
    """Each call is one iteration, whose loss goes down on one batch seen again and again."""
    step = make_our_step("cpu", 4, 32, "bfloat16", tmp_path)
    trainer = step.__closure__[0].cell_contents  # type: ignore[attr-defined]
    losses = []
    for iteration in range(4):
        assert trainer.iter == trainer.storage.iter == iteration
        step()
        losses.append(trainer.storage.latest()["total_loss"][0])
    assert losses[-1] < losses[0]


def test_a_report_goes_into_its_table() -> None:
    report = classifier_step_report("cpu", 2, 32, "float32", 1)
    assert {*report["steps"]} == {*LABELS}
    table = classifier_step_section(report)
    assert all(label in table for label in LABELS.values())
    with pytest.raises(UserError, match="--batch is 0; expected 1 or more"):
        classifier_step_report("cpu", 0, 32, "float32", 1)


def test_the_table_has_time_and_ratio() -> None:
    study = {
        **{"command": "python x", "hardware": "a CPU", "size": 224, "batch": 32},
        "precision": "float32",
        "steps": {
            "spnas": {"seconds": 0.62, "time_ratio": 1.24},
            "timm": {"seconds": 0.5, "time_ratio": 1.0},
        },
    }
    table = classifier_step_section(study)
    assert "| this project's trainer" in table
    assert "| 620 ms | 1.24" in " ".join(table.split())
    assert table.endswith("`python x`; a CPU.")
