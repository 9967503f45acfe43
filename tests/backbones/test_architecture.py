"""Architectures: round trips, and every way in which a file can be wrong."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from backbones import Architecture, LayerSpec, UserError, list_models, load_architecture
from backbones.architecture import make_divisible


@pytest.fixture
def good() -> dict[str, Any]:
    return load_architecture("spnas_100").to_dict()


@pytest.mark.parametrize("name", list_models())
def test_round_trip(name: str, tmp_path: Path) -> None:
    architecture = load_architecture(name)
    architecture.save(tmp_path / "a.json")
    assert Architecture.load(tmp_path / "a.json") == architecture


def test_every_candidate_survives_the_round_trip(tmp_path: Path) -> None:
    """All 13 types of Sec. III-A: what is written is what is read (the original mixed two up)."""
    base = load_architecture("spnas_100")
    seen = set()
    specs = [LayerSpec(24, op="skip")] + [
        LayerSpec(24, kernel_size=k, expansion=e, se_ratio=s)
        for k, e, s in itertools.product((3, 5), (3, 6), (0, 0.25, 0.5))
    ]
    for spec in specs:
        layers = (*base.layers[:2], spec, *base.layers[3:])
        dataclasses.replace(base, layers=layers).save(tmp_path / "a.json")
        read = Architecture.load(tmp_path / "a.json").layers[2]
        assert read == spec
        written = json.loads((tmp_path / "a.json").read_text())["layers"][2]
        assert written.get("kernel_size", 3) == spec.kernel_size
        assert written.get("expansion", 1) == spec.expansion
        seen.add(read.type)
    assert len(seen) == 13


def change(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(data)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = data
    for part in parents:
        target = target[part]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("layers.1.stride", 3, r"layers\[1\].stride is 3; expected 1 or 2"),
        ("layers.1.stride", 1, r"strides that its layers reach is \[2, 4, 8, 16\]"),
        ("layers.2.kernel_size", 4, r"layers\[2\].kernel_size is 4; expected one of 3, 5, 7"),
        ("layers.2.kernel_size", "3", "kernel_size is '3'; expected an integer"),
        ("layers.2.expansion", 0, r"layers\[2\].expansion is 0"),
        ("layers.2.expansion", 0.01, "expansion is 0.01; .* at least one of 24 channels"),
        ("layers.0.expansion", 6, r"layers\[0\].expansion is 6; expected 1 for a 'ds' layer"),
        ("layers.2.se_ratio", 1.5, "se_ratio is 1.5"),
        ("layers.2.se_ratio", 0.001, "leaves at least one of 24 channels"),
        ("layers.2.out_channels", -8, r"out_channels is -8; expected a number of channels"),
        ("layers.2.out_channels", True, "out_channels is True; expected an integer"),
        ("layers.2.op", "conv", r"op is 'conv'; expected one of 'mbconv', 'ds', 'skip'"),
        ("layers.4.out_channels", 32, "expected 24, the channels of its input"),
        ("layers.4.stride", 2, "expected 1, since the layer is skipped"),
        ("layers.2.kernel", 3, "unknown key 'kernel'"),
        ("layers.2.out_channels", KeyError, "the key 'out_channels' is missing"),
        ("layers", [], "expected at least one layer"),
        ("layers", 5, "layers is 5; expected"),
        ("layers.3", 5, r"layers\[3\] is 5; expected an object"),
        ("stem.kernel_size", 2, "stem.kernel_size is 2"),
        ("head.activation", "gelu", "activation is 'gelu'; expected one of 'relu'"),
        ("schema_version", 9, "schema_version is 9, this release reads 1"),
        ("norm_eps", float("nan"), "norm_eps is nan; expected a finite number"),
        ("name", "", "name is ''"),
        ("padding", "valid", "padding is 'valid'; expected one of 'symmetric', 'same'"),
        ("input", {"size": 8}, "input.size is 8; expected 32 to 4096 pixels"),
        ("input", {"mean": [127, 127, 127]}, r"input.mean is \[127, 127, 127\]; .* in \[0, 1\]"),
        ("input", {"std": [0.5, 0.5, 0]}, r"input.std is .*; expected figures for images in"),
        ("input", {"mean": [0.5]}, r"mean is \[0.5\]; expected 3 values"),
    ],
)
def test_impossible_files(good: dict[str, Any], path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Architecture.from_dict(change(good, path, value))


def test_conventions_at_their_default_are_not_written(good: dict[str, Any]) -> None:
    assert list(good) == [
        *("schema_version", "name", "stem", "layers", "head", "norm_eps", "provenance")
    ]
    lite = load_architecture("efficientnet_lite1")
    assert (lite.input.pixel_mean, lite.input.pixel_std) == ([127.0] * 3, [128.0] * 3)
    assert lite.to_dict()["input"]["size"] == lite.scaled(0.5).input.size == 240


def test_an_impossible_file_is_named(good: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(change(good, "layers.1.stride", 3)))
    with pytest.raises(UserError, match=r"a\.json: architecture 'spnas_100': layers\[1\]\.stride"):
        Architecture.load(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"x"', "\x00"])
def test_malformed_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json"):
        Architecture.load(tmp_path / "a.json")


def test_width_multiplier_rounds_like_timm() -> None:
    from timm.layers import make_divisible as theirs

    for value in range(1, 400):
        for factor in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4):
            assert make_divisible(value * factor) == theirs(value * factor)
    for name, wide in (("mobilenetv2_100", 1792), ("spnas_100", 1280), ("fbnet_c", 1984)):
        network = load_architecture(name)
        assert network.scaled(1.4).head.out_channels == wide
        assert network.scaled(0.5).head == network.head


def test_feature_layers_are_the_last_at_their_stride() -> None:
    architecture = load_architecture("spnas_100")
    assert architecture.feature_layers == (0, 4, 8, 16, 21)
