"""Names and shapes decide which tensor is which; the order in a file never does."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import timm
import torch
import torchvision
from pytorchcv.model_provider import get_model as pytorchcv_model
from torch import Tensor, nn

from backbones import UserError, convert_weights, create_model, load_architecture
from backbones.naming import ModuleOrder

LIBRARIES: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "timm": ("mobilenetv3_large_100", lambda: timm.create_model("mobilenetv3_large_100")),
    "timm's FBNet": ("fbnet_c", lambda: timm.create_model("fbnetc_100")),
    "torchvision v2": ("mobilenetv2_100", torchvision.models.mobilenet_v2),
    "torchvision v3": ("mobilenetv3_large_100", torchvision.models.mobilenet_v3_large),
    "torchvision MNASNet": ("mnasnet_b1", torchvision.models.mnasnet1_0),
    "pytorchcv": ("proxylessnas_mobile", lambda: pytorchcv_model("proxylessnas_mobile")),
    "pytorchcv's SPNASNet": ("spnas_100", lambda: pytorchcv_model("spnasnet")),
}


def modules_of(model: nn.Module) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in model.state_dict()))


@pytest.mark.parametrize("library", LIBRARIES)
def test_names_tell_the_order_of_computing(library: str) -> None:
    """All of it, as the libraries register their modules."""
    names = modules_of(LIBRARIES[library][1]())
    shuffled = random.Random(0).sample(names, len(names))
    order = ModuleOrder(shuffled)
    for first, second in pairwise(names):
        assert order.before(first, second), (first, second)
        assert order.before(second, first) is False


@pytest.mark.parametrize("library", LIBRARIES)
def test_any_order_in_the_file_gives_the_same(library: str) -> None:
    name, build = LIBRARIES[library]
    state = build().state_dict()
    architecture = load_architecture(name)
    expected = convert_weights(architecture, state)
    # the reference: modules in the order in which they are registered, one after the other
    positions = iter(state.values())
    assert all(torch.equal(value.flatten(), next(positions).flatten()) for value in
               (expected[key] for key in expected))  # fmt: skip
    for others in (sorted(state), random.Random(0).sample(list(state), len(state))):
        found = convert_weights(architecture, {key: state[key] for key in others})
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found)


def gibberish(state: dict[str, Tensor], rename: Callable[[int, str], str]) -> dict[str, Tensor]:
    """The tensors with their modules renamed by number and name."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    return {
        f"{rename(modules.index(name.rpartition('.')[0]), name)}.{name.rpartition('.')[2]}": value
        for name, value in state.items()
    }


def test_numbers_are_names_enough() -> None:
    state = timm.create_model("mobilenetv2_100").state_dict()
    expected = convert_weights(load_architecture("mobilenetv2_100"), state)
    numbered = gibberish(state, lambda index, name: f"part{index}")
    swapped = dict(reversed(numbered.items()))
    found = convert_weights(load_architecture("mobilenetv2_100"), swapped)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_names_that_say_nothing_are_not_guessed(tmp_path: object) -> None:
    """Whether or not two neighbours of one shape are swapped: nothing would tell."""
    state = timm.create_model("mobilenetv2_100").state_dict()
    letters = gibberish(
        state, lambda index, name: "".join(chr(97 + int(d)) for d in f"{index:03d}") + "x"
    )
    message = r"'\w+' and '\w+' both have the shapes .*, and their names do not tell which comes"
    for tensors in (letters, dict(sorted(letters.items(), reverse=True))):
        with pytest.raises(UserError, match=message):
            convert_weights(load_architecture("mobilenetv2_100"), tensors)


def test_shapes_that_are_unlike_need_no_names() -> None:
    """Where all modules of a shape are ordered by names, the others may be called anything."""
    state = timm.create_model("mobilenetv2_100").state_dict()
    expected = convert_weights(load_architecture("mobilenetv2_100"), state)
    renamed = {
        name.replace("conv_stem.", "first.").replace("classifier.", "zz."): value
        for name, value in state.items()
    }
    renamed = {f"trunk.{k}" if k.startswith("blocks") else k: v for k, v in renamed.items()}
    with pytest.raises(UserError, match="'bn1' and 'trunk.blocks"):
        convert_weights(load_architecture("mobilenetv2_100"), renamed)
    kept = {name.replace("conv_pwl.", "last."): value for name, value in state.items()}
    kept = {name.replace("classifier.", "zz."): value for name, value in kept.items()}
    with pytest.raises(UserError, match="names do not tell"):
        convert_weights(load_architecture("mobilenetv2_100"), kept)
    inside = {name.replace(".conv_pw.", ".widen."): value for name, value in state.items()}
    found = convert_weights(load_architecture("mobilenetv2_100"), inside)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_two_blocks_the_other_way_round() -> None:
    """The same shapes in another order are another network."""
    state = timm.create_model("mobilenetv2_100").state_dict()
    turn = {"blocks.1.": "blocks.2.", "blocks.2.": "blocks.1."}
    turned = {turn.get(name[:9], name[:9]) + name[9:]: value for name, value in state.items()}
    with pytest.raises(UserError, match="comes before .* they are not the same network"):
        convert_weights(load_architecture("mobilenetv2_100"), turned)


def test_a_trunk_alone() -> None:
    state = timm.create_model("mobilenetv2_100").state_dict()
    trunk = {k: v for k, v in state.items() if not k.startswith(("conv_head", "bn2", "class"))}
    found = convert_weights(load_architecture("mobilenetv2_100"), trunk)
    assert set(found) == set(create_model("mobilenetv2_100", features_only=True).state_dict())
    assert torch.equal(found["layers.0.project.norm.bias"], state["blocks.0.0.bn2.bias"])
