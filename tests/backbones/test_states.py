"""Where the weights of a checkpoint are found, and what is said of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones import UserError, create_model
from backbones.states import model_state, network_state, prefix_for

A, B = {"a": torch.ones(2)}, {"a": torch.zeros(2)}


@pytest.mark.parametrize(
    "content",
    [
        A,
        {"model": A, "optimizer": {"state": {"a": torch.zeros(2)}}},
        {"state_dict": A, "best_acc1": torch.tensor(70.0)},
        {"net": A, "acc": 3},
        {"network": {"state_dict": A}, "epoch": 3},
        {"my_weights": A, "loss_fn": {"w": torch.zeros(3)}, "scheduler": {"b": torch.zeros(1)}},
        {"model": None, "model_state_dict": A, "ema": None},
        {"model": A, "ema": 0.999, "iteration": 3},
        {"state_dict": B, "state_dict_ema": A},
        {"model": B, "model_ema": A},
        {"model": B, "ema": {"module": A, "updates": 3, "decay": torch.tensor(0.9)}},
        {"state_dict": B, "EMA": {"shadow": A, "decay": 0.9}},
        {"model": A, "ema_optimizer": {"a": torch.zeros(2)}},
        {"ema_state": {"state": A}},
    ],
)
def test_containers(content: dict[str, Any]) -> None:
    found = model_state(content, "x.pth")
    assert list(found) == ["a"]
    assert found["a"] is A["a"]


def test_a_line_says_which_weights_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model_state({"state_dict": B, "state_dict_ema": A}, "x.pth")
        model_state({"model": A, "ema": {"shadow_params": [torch.ones(2)]}}, "y.pth")
    assert [record.getMessage() for record in caplog.records] == [
        "'x.pth': the averaged weights under 'state_dict_ema' are taken",
        "'y.pth': 'ema' holds no tensors by name: it is left out",
    ]


def test_averaged_parameters_are_completed() -> None:
    live = {"module.a": torch.zeros(2), "module.a_mean": torch.full((2,), 5.0)}
    found = model_state({"model": live, "ema": A}, "x.pth")
    assert {name: value.tolist() for name, value in found.items()} == {
        "a": [1, 1],
        "a_mean": [5, 5],
    }


def test_own_checkpoints_keep_their_live_weights(caplog: pytest.LogCaptureFixture) -> None:
    state = create_model("spnas_100", num_classes=2).state_dict()
    averaged = {f"module.{name}": value + 1 for name, value in state.items()}
    content = {"model": state, "ema": averaged, "iteration": 3}
    found = model_state(content, "x.pth")
    assert all(found[name] is value for name, value in state.items())


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {"a": "text"}}, {"optim": A}])
def test_no_weights(content: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="'x.pth' holds no model weights"):
        model_state(content, "x.pth")


def test_several_containers() -> None:
    with pytest.raises(UserError, match="holds weights under generator, discriminator; save those"):
        model_state({"generator": A, "discriminator": B}, "x.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single(dtype: torch.dtype) -> None:
    state = {"a": torch.rand(3).to(dtype), "count": torch.tensor(3)}
    found = model_state(state, "x.pth")
    assert found["a"].dtype == torch.float32
    assert torch.equal(found["a"], state["a"].float())
    assert found["count"] is state["count"]


def names_of(state: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in state.items()}


def named(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(float(index)) for index, name in enumerate(names)}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["stem.conv.weight", "a"], {"stem.conv.weight": 0, "a": 1}),
        (["module.conv_stem.weight", "module.a"], {"conv_stem.weight": 0, "a": 1}),
        (["model._orig_mod.net.conv_stem.weight", "loss.w"], {"conv_stem.weight": 0}),
        (["features._orig_mod.0.0.weight", "a"], {"features.0.0.weight": 0, "a": 1}),
        # a first tensor of MNASNet's within one of its blocks
        (["layers.8.0.layers.0.weight", "layers.0.weight"], None),
        (["model.conv_stem.weight", "ema_model.module.conv_stem.weight"], {"conv_stem.weight": 1}),
        (["backbone.bottom_up.stem.conv.weight", "rpn.w"], {"stem.conv.weight": 0}),
        (["a", "b"], None),
    ],
)
def test_prefixes(names: list[str], found: dict[str, float] | None) -> None:
    state = named(*names)
    assert names_of(network_state(state, "x.pth")) == (found or names_of(state))
    if not found:
        assert network_state(state, "x.pth") is state


def test_what_is_left_out_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        network_state(named("model.conv_stem.weight", "criterion.w", "metric.n"), "x.pth")
    assert caplog.messages == [
        "'x.pth': the network is under 'model.'; 2 other tensors are left out: criterion.w, "
        "metric.n"
    ]


def test_two_networks_are_not_guessed_between() -> None:
    state = named("student.conv_stem.weight", "teacher.conv_stem.weight")
    with pytest.raises(UserError, match="holds 2 networks, under student., teacher.; save the one"):
        network_state(state, "x.pth")


def test_prefix_for() -> None:
    expected = ["a.weight", "b.weight"]
    assert prefix_for(["m.a.weight", "m.b.weight", "n.a.weight"], expected) == "m."
    assert prefix_for(["_orig_mod.m._orig_mod.a.weight"], expected) == "m."
    assert prefix_for(["a.weight", "c"], expected) == ""
    assert prefix_for(["c.weight"], expected) is None


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; name the file in it, or local-dir:"):
        create_model("spnas_100", checkpoint_path=tmp_path)
