"""The space of Sec. III-A as data."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from backbones import Architecture, UserError, load_architecture
from backbones.paths import config_path
from backbones.schema import named_files
from search.space import Candidate, SearchSpace


def test_the_papers_space(space: SearchSpace) -> None:
    assert len(space.layers) == 20
    assert len(space.stages) + len(space.first) + len(space.last) == 7
    strides = [i for i, layer in enumerate(space.layers, 1) if layer.stride == 2]
    fixed = [i for i, layer in enumerate(space.layers, 1) if not layer.droppable]
    assert strides == [1, 5, 9, 17]
    assert fixed == [1, 5, 9, 13, 17]
    for layer in space.layers:
        types = [space.choice_type(choice) for choice in space.choices(layer)]
        assert len(set(types)) == len(types) == (13 if layer.droppable else 12)
    assert str(space.choice_type(Candidate(1, 0, 2))) == "5x5-3-0.5"


def test_the_published_network_is_in_it(space: SearchSpace) -> None:
    architecture = load_architecture("spnas_100")
    choices = space.choices_of(architecture)
    assert [str(space.choice_type(c)) for c in choices][:5] == ["3x3-3"] * 3 + ["skip", "5x5-6"]
    assert space.architecture(choices, "spnas_100").layers == architecture.layers


def test_choices_round_trip(space: SearchSpace, rng: random.Random) -> None:
    for _ in range(200):
        choices = space.sample(rng)
        assert space.choices_of(space.architecture(choices, "random")) == choices


def test_extremes(space: SearchSpace) -> None:
    types = {str(layer.type) for layer in space.largest().layers[1:-1]}
    assert types == {"5x5-6-0.5"}
    kept = [str(layer.type) for layer in space.smallest().layers[1:-1] if layer.op != "skip"]
    assert kept == ["3x3-3"] * 5


def test_activation_and_norm_epsilon_reach_every_searchable_layer(
    space: SearchSpace, tmp_path: Path, rng: random.Random
) -> None:
    data = json.loads(config_path("search", "spaces", "imagenet.json").read_text())
    (tmp_path / "s.json").write_text(
        json.dumps({**data, "activation": "hard_swish", "norm_eps": 1e-3})
    )
    swish = SearchSpace.load(tmp_path / "s.json")
    assert (space.activation, space.norm_eps) == ("relu", 1e-5)
    assert (swish.activation, swish.norm_eps) == ("hard_swish", 1e-3)
    choices = swish.sample(rng)
    architecture = swish.architecture(choices, "random")
    searched = [layer for layer in architecture.layers[1:-1] if layer.op != "skip"]
    assert {layer.activation for layer in searched} == {"hard_swish"}
    assert architecture.layers[0].activation == architecture.layers[-1].activation == "relu"
    assert architecture.norm_eps == swish.scaled(0.5).norm_eps == 1e-3
    assert swish.choices_of(architecture) == choices
    other_eps = dataclasses.replace(architecture, norm_eps=1e-5)
    for network in (space.architecture(choices, "relu"), other_eps):
        with pytest.raises(UserError, match="is not a network of search space"):
            swish.choices_of(network)
    (tmp_path / "again.json").write_text(json.dumps(swish.to_dict()))
    assert SearchSpace.load(tmp_path / "again.json") == swish


def test_padding_and_input_reach_every_network(space: SearchSpace, tmp_path: Path) -> None:
    images = {"size": 240, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]}
    data = json.loads(config_path("search", "spaces", "imagenet.json").read_text())
    data.update(padding="same", input=images, fixed_stem=True)
    (tmp_path / "s.json").write_text(json.dumps(data))
    other = SearchSpace.load(tmp_path / "s.json")
    network = other.scaled(0.5).largest()
    assert (network.padding, network.input.size, network.input.std[0]) == ("same", 240, 0.25)
    assert network.stem == space.stem
    for made, load in ((other, SearchSpace.load), (network, Architecture.load)):
        (tmp_path / "again.json").write_text(json.dumps(made.to_dict()))
        assert load(tmp_path / "again.json") == made
    with pytest.raises(UserError, match="is not a network of search space"):
        space.choices_of(other.largest())


@pytest.mark.parametrize("name", named_files("search", "spaces"))
def test_a_space_with_defaults_is_described_as_before(name: str) -> None:
    """Studies on disk hold what their space was: it must not change with new keys."""
    described = SearchSpace.load(name).to_dict()
    assert set(described) == {
        *("schema_version", "name", "stem", "first", "stages", "last", "head"),
        *("kernel_sizes", "expansions", "se_ratios"),
    }


def test_a_network_of_another_space_is_refused(space: SearchSpace) -> None:
    with pytest.raises(UserError, match="is not a network of search space 'imagenet'"):
        space.choices_of(load_architecture("spnas_100").scaled(0.5))
    with pytest.raises(UserError, match="20 searchable layers; got 2 choices"):
        space.architecture([None, None], "short")
    with pytest.raises(UserError, match=r"layers\[1\].*expected 16, the channels of its input"):
        space.architecture([None] * 20, "nothing")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(kernel_sizes=[5, 3]), r"kernel_sizes is \[5, 3\]; expected different"),
        (lambda s: s.update(kernel_sizes=[4]), "kernel_size is 4"),
        (lambda s: s.update(expansions=[]), r"expansions is \[\]"),
        (lambda s: s.update(se_ratios=[0, 7]), "se_ratio is 7"),
        (
            lambda s: s.update(activation="gelu"),
            "activation is 'gelu'; expected one of 'relu', 're",
        ),
        (lambda s: s.update(norm_eps=0), "norm_eps is 0; expected in"),
        (lambda s: s["stages"].pop(), "strides that its layers reach"),
        (lambda s: s.update(stage=[]), "unknown key 'stage'"),
        (lambda s: s.update(schema_version=0), "schema_version is 0"),
    ],
)
def test_bad_spaces(tmp_path: Path, edit: Any, message: str) -> None:
    data = json.loads(config_path("search", "spaces", "imagenet.json").read_text())
    edit(data)
    (tmp_path / "s.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=message):
        SearchSpace.load(tmp_path / "s.json")


def test_unknown_space() -> None:
    with pytest.raises(UserError, match="unknown search space 'mars'; expected one of"):
        SearchSpace.load("mars")
