"""The space around a network, and the network's own place in it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from backbones import Architecture, LayerSpec, UserError, list_models, load_architecture
from search.space import SearchSpace, Stage
from search.start.around import Options, space_around
from tests.search.start.conftest import tiny_network


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("name", [name for name in list_models() if name != "fbnet_b"])
def test_choices_make_the_network(name: str, extra: int) -> None:
    network = load_architecture(name)
    space, choices = space_around(network, Options(extra_depth=extra))
    found = space.architecture(choices, network.name)
    kept = [layer for layer in found.layers if layer.op != "skip"]
    assert kept == [layer for layer in network.layers if layer.op != "skip"]
    skipped = [layer.op for layer in network.layers].count("skip")
    assert choices.count(None) == skipped + extra * len(space.stages)
    assert space.choices_of(found) == choices
    for part in ("stem", "head", "norm_eps", "padding", "input", "fixed_stem"):
        assert getattr(found, part) == getattr(network, part), part
    if not extra:
        assert found.layers == network.layers
    smaller = found.scaled(0.5) if network.fixed_stem else None
    assert smaller is None or smaller.stem == network.stem


@pytest.mark.parametrize("name", ["mobilenetv3_large_100", "mnasnet_a1", "efficientnet_lite0"])
def test_a_file_has_all_of_it(name: str, tmp_path: Path) -> None:
    network = load_architecture(name)
    space, choices = space_around(network, Options((3, 5, 7), extra_depth=1))
    (tmp_path / "space.json").write_text(json.dumps(space.to_dict()))
    again = SearchSpace.load(tmp_path / "space.json")
    assert again == space
    assert again.architecture(choices, name) == space.architecture(choices, name)


def test_stages_begin_at_strides_channels_and_activations() -> None:
    """Table 1 of Howard et al. (2019): the activation changes with the stride of the 80."""
    space, _ = space_around(load_architecture("mobilenetv3_large_100"), Options())
    assert space.activation == "relu"
    assert space.stages == (
        Stage(24, 2, 2),
        Stage(40, 3, 2),
        Stage(80, 4, 2, "hard_swish"),
        Stage(112, 2, 1, "hard_swish"),
        Stage(160, 3, 2, "hard_swish"),
    )
    activations = [layer.activation for layer in space.layers]
    assert activations == [None] * 5 + ["hard_swish"] * 9
    assert (space.se_reference, space.se_gate) == ("expanded", "hard_sigmoid")
    assert space.channel_divisor == 8
    assert [layer.op for layer in space.first] == ["ds"]


def test_an_activation_alone_begins_a_stage() -> None:
    base = tiny_network()
    layers = (*base.layers[:2], LayerSpec(12, expansion=3, activation="hard_swish"))
    space, choices = space_around(
        dataclasses.replace(base, layers=(*layers, *base.layers[3:])), Options()
    )
    assert space.stages[:2] == (Stage(12, 1, 2), Stage(12, 1, 1, "hard_swish"))
    assert space.architecture(choices, "again").layers[2].activation == "hard_swish"


def test_options_are_those_named_and_the_networks_own() -> None:
    network = load_architecture("mnasnet_a1")
    space, _ = space_around(network, Options((7,), (2,), (0.5,)))
    assert space.kernel_sizes == (3, 5, 7)
    assert space.expansions == (2, 3, 6)
    assert space.se_ratios == (0, 0.25, 0.5)
    assert space.se_reference == "input"
    own, _ = space_around(network, Options((), (), ()))
    assert (own.kernel_sizes, own.expansions, own.se_ratios) == ((3, 5), (3, 6), (0, 0.25))
    deep, choices = space_around(network, Options(extra_depth=2))
    assert len(deep.layers) == len(own.layers) + 2 * len(own.stages) == len(choices)
    with_se = [spec for spec in deep.largest().layers if spec.se_ratio]
    assert with_se and {spec.se_reference for spec in with_se} == {"input"}


def mixed(**second: object) -> Architecture:
    """Two layers with SE that differ in one field."""
    base = tiny_network()
    changed = list(base.layers)
    changed[1] = dataclasses.replace(changed[1], se_ratio=0.25)
    changed[2] = dataclasses.replace(changed[2], se_ratio=0.25, **second)  # type: ignore[arg-type]
    return dataclasses.replace(base, layers=tuple(changed))


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (mixed(se_reference="input"), Options(), "values of se_reference, expanded and input, and"),
        (mixed(se_gate="hard_sigmoid"), Options(), "se_gate, hard_sigmoid and sigmoid, and a"),
        (mixed(channel_divisor=8), Options(), "channel_divisor, 1 and 8, and a search space"),
        (load_architecture("fbnet_b"), Options(), r"layer \d+ is 'ds'.* start from another"),
        (tiny_network(), Options(extra_depth=-1), "EXTRA_DEPTH is -1; expected 0 or more"),
    ],
)
def test_networks_that_no_space_is_around(
    network: Architecture, options: Options, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        space_around(network, options)
    assert "\n" not in str(caught.value)


def test_a_space_of_the_package_is_not_changed() -> None:
    """A stage has an activation of its own only in the file that says so."""
    space = SearchSpace.load("imagenet")
    assert all("activation" not in stage for stage in space.to_dict()["stages"])
    assert "se_reference" not in space.to_dict()
