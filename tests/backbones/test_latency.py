"""Latency tables: the published sums, and what a table refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from backbones import LatencyTable, UserError, load_architecture, predict_runtime
from backbones.architecture import Architecture, LayerSpec
from backbones.latency import Correction, input_sizes, layer_runtimes
from backbones.layer_types import LayerType
from backbones.paths import config_path
from backbones.schema import named_files

UNDROPPABLE = (1, 5, 9, 13, 17)


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return LatencyTable.load("pixel1")


def uniform(type_of_layer: Any) -> Architecture:
    """The paper's macro-architecture with ``type_of_layer(index)`` at layers 1 to 20."""
    base = load_architecture("spnas_100")
    layers = [
        dataclasses.replace(
            type_of_layer(index), out_channels=spec.out_channels, stride=spec.stride
        )
        if 1 <= index <= 20
        else spec
        for index, spec in enumerate(base.layers)
    ]
    return dataclasses.replace(base, name="uniform", layers=tuple(layers))


def nan_correction(name: str) -> dict[str, Any]:
    figures = dict.fromkeys(("intercept", "scale", "per_layer", "per_se", "error"), 0.0)
    return {**figures, name: float("nan"), "networks": {}}


def mbconv(kernel_size: int, expansion: int, se_ratio: float = 0) -> LayerSpec:
    return LayerSpec(1, kernel_size=kernel_size, expansion=expansion, se_ratio=se_ratio)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (load_architecture("spnas_100"), 80.44),
        (uniform(lambda index: mbconv(3, 3)), 65.69),
        (uniform(lambda index: mbconv(3, 6)), 110.65),
        (uniform(lambda index: mbconv(5, 6)), 131.46),
        (
            uniform(lambda i: mbconv(3, 3) if i in UNDROPPABLE else LayerSpec(1, op="skip")),
            30.63,  # published as 30.6
        ),
    ],
)
def test_published_sums(table: LatencyTable, architecture: Architecture, expected: float) -> None:
    assert predict_runtime(architecture, table) == pytest.approx(expected, abs=0.01)


def test_unprofiled_se_costs_nothing(table: LatencyTable) -> None:
    plain, se = uniform(lambda i: mbconv(5, 3)), uniform(lambda i: mbconv(5, 3, 0.5))
    assert predict_runtime(se, table) == predict_runtime(plain, table)


def test_only_tables_without_any_se_stand_for_se(table: LatencyTable) -> None:
    """A table that profiled SE and lacks one entry must not answer with the entry without SE."""
    row = table.layers[4]
    profiled = dataclasses.replace(row, runtimes={**row.runtimes, LayerType(3, 3, 0.25): 9.0})
    assert profiled.runtime(LayerType(3, 3, 0.25)) == 9.0
    assert profiled.runtime(LayerType(5, 3, 0.25)) is None
    assert row.runtime(LayerType(5, 3, 0.25)) == row.runtimes[LayerType(5, 3)]


def test_correction_by_hand(table: LatencyTable) -> None:
    fit = Correction(0.5, 1.1, -0.2, 0.3, networks={}, error=1.0)
    corrected = dataclasses.replace(table, correction=fit)
    base = load_architecture("spnas_100")
    plain = predict_runtime(base, table)
    kept = sum(spec.op != "skip" for spec in base.layers[1:21])
    expected = 0.5 + 1.1 * plain - 0.2 * kept
    assert predict_runtime(base, corrected) == pytest.approx(expected)
    se = uniform(lambda i: mbconv(5, 3, 0.5))
    expected = 0.5 + 1.1 * predict_runtime(se, table) + 20 * (0.3 - 0.2)
    assert predict_runtime(se, corrected) == pytest.approx(expected)


def test_a_detection_table_ignores_the_classifier_head(table: LatencyTable) -> None:
    constant = dataclasses.replace(table.constant, head=None, fpn_channels=256)
    detection = dataclasses.replace(table, constant=constant)
    assert (table.task, detection.task) == ("classification", "detection")
    base = load_architecture("spnas_100")
    other = dataclasses.replace(base, head=dataclasses.replace(base.head, out_channels=640))
    assert predict_runtime(other, detection) == predict_runtime(base, table)
    with pytest.raises(UserError, match="head: not the one"):
        predict_runtime(other, table)


def test_a_correction_is_of_layers_that_are_there(table: LatencyTable) -> None:
    base = load_architecture("spnas_100")
    kept = sum(spec.op != "skip" for spec in base.layers[1:21])
    assert kept < 20
    dearer = dataclasses.replace(table, correction=Correction(0.0, 1.0, 0.25, 0.0, {}, 1.0))
    expected = predict_runtime(base, table) + 0.25 * kept
    assert predict_runtime(base, dearer) == pytest.approx(expected)


def test_odd_images_round_up(table: LatencyTable) -> None:
    """Every convolution of stride 2 gives half of the pixels, rounded up."""
    base = load_architecture("spnas_100")
    height, width, expected = 225, 331, []
    height, width = (height + 1) // 2, (width + 1) // 2  # the stem
    for spec in base.layers:
        expected.append((height, width))
        if spec.stride == 2:
            height, width = (height + 1) // 2, (width + 1) // 2
    assert input_sizes(base, (225, 331)) == expected
    assert expected[-1] == (8, 11)


def test_errors_name_three_parts_and_count_all(table: LatencyTable) -> None:
    found = predict_error(uniform(lambda i: mbconv(7, 6) if i < 6 else mbconv(3, 3)), table)
    assert "it lacks 5 parts, layers[1]: " in found
    assert "layers[3]: " in found and "layers[4]: " not in found


def predict_error(architecture: Architecture, table: LatencyTable) -> str:
    with pytest.raises(UserError, match="does not cover architecture 'uniform'") as caught:
        predict_runtime(architecture, table)
    return str(caught.value)


def test_round_trip(table: LatencyTable, tmp_path: Path) -> None:
    fit = Correction(0.5, 1.1, -0.2, 0.3, networks={"3x3-3 skip": 1.5}, error=1.0)
    for saved in (
        table,
        dataclasses.replace(table, correction=fit, threads=1, versions={"a": "1"}),
    ):
        saved.save(tmp_path / "t.json")
        assert LatencyTable.load(tmp_path / "t.json") == saved


@pytest.mark.parametrize("name", named_files("latency"))
def test_schema_1_has_the_engine_under_runtime(tmp_path: Path, name: str) -> None:
    data = json.loads(config_path("latency", f"{name}.json").read_text())
    older = {**data, "schema_version": 1, "runtime": data["engine"]}
    del older["engine"]
    (tmp_path / "t.json").write_text(json.dumps(older))
    found = LatencyTable.load(tmp_path / "t.json")
    assert found == LatencyTable.load(name)
    found.save(tmp_path / "t.json")
    saved = json.loads((tmp_path / "t.json").read_text())
    assert (saved["schema_version"], saved["engine"]) == (2, data["engine"])
    assert "runtime" not in saved


def test_files_without_an_activation_are_of_relu(table: LatencyTable, tmp_path: Path) -> None:
    """Shipped tables are read and written to the byte; another activation is written down."""
    assert table.activation == "relu"
    for name in named_files("latency"):
        if name == "pixel1":
            continue  # it leaves out what is at its default
        path = config_path("latency", f"{name}.json")
        LatencyTable.load(name).save(tmp_path / "t.json")
        assert (tmp_path / "t.json").read_bytes() == path.read_bytes()
    swish = dataclasses.replace(table, activation="hard_swish")
    swish.save(tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["activation"] == "hard_swish"
    assert LatencyTable.load(tmp_path / "t.json") == swish


def test_other_activations_are_not_covered(table: LatencyTable) -> None:
    """Layer by layer; a skipped layer has no activation."""
    base = load_architecture("spnas_100")
    layers = list(base.layers)
    for index in (2, 5):
        layers[index] = dataclasses.replace(layers[index], activation="hard_swish")
    mixed = dataclasses.replace(base, layers=tuple(layers))
    found, uncovered = layer_runtimes(mixed, table)
    assert set(uncovered) == {"layers[2]", "layers[5]"}
    assert sorted(found) == [i for i in range(1, 21) if i not in (2, 5)]
    message = r"lacks 2 parts, layers\[2\]: 3x3-3 with activation hard_swish, where .* have relu;"
    with pytest.raises(UserError, match=message):
        predict_runtime(mixed, table)
    skipped = sum(spec.op == "skip" for spec in base.layers)
    _, uncovered = layer_runtimes(base, dataclasses.replace(table, activation="relu6"))
    assert len(uncovered) == 20 - skipped < 20


def test_a_ds_layer_is_no_mbconv(table: LatencyTable) -> None:
    """Same kernel and expansion, another op: the row of one must not answer for the other."""
    rows = [
        dataclasses.replace(row, runtimes={**row.runtimes, LayerType(3, 1): 1.0})
        for row in table.layers
    ]
    known = dataclasses.replace(table, layers=tuple(rows))
    ds = uniform(lambda i: LayerSpec(1, op="ds") if i == 2 else mbconv(3, 1))
    assert layer_runtimes(ds, known)[1] == {
        "layers[2]": "ds:3x3-1 with 24 → 24 channels, stride 1 at 56×56"
    }


def test_uncovered_layers_are_named(table: LatencyTable) -> None:
    seven = uniform(lambda i: mbconv(7, 6) if i == 2 else mbconv(3, 3))
    found, uncovered = layer_runtimes(seven, table)
    assert set(uncovered) == {"layers[2]"}
    assert sorted(found) == [i for i in range(1, 21) if i != 2]
    with pytest.raises(UserError, match=r"it lacks 1 part, layers\[2\]: 7x7-6 with 24 → 24"):
        predict_runtime(seven, table)
    with pytest.raises(UserError, match="stem: not the one"):
        predict_runtime(load_architecture("spnas_100").scaled(0.5), table)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t["layers"][3]["runtimes"].update({"3x3-3": -1.0}), r"layers\[3\]: 3x3-3 is -1"),
        (lambda t: t["layers"][3]["runtimes"].update({"3x3-3": float("inf")}), "is inf"),
        (lambda t: t["constant"].update(runtime=float("inf")), "constant: runtime is inf"),
        (lambda t: t["layers"][0].update(stride="2"), "stride is '2'; expected an integer"),
        (lambda t: t["layers"][3]["runtimes"].update({"3x5-3": 1.0}), "'3x5-3' is no type of a la"),
        (lambda t: t["layers"][0].update(spreads={"k3": 0.1}), "spreads: 'k3' is no type"),
        (lambda t: t.update(activation="gelu"), "activation is 'gelu'; expected one of 'relu'"),
        (lambda t: t.update(layers=[]), "has no layers"),
        (lambda t: t.pop("constant"), "the key 'constant' is missing"),
        (lambda t: t.update(input_size=[224]), r"input_size is \[224\]; expected 2 values"),
        (lambda t: t.update(schema_version=3), "version is 3, this release reads 1 and 2; make"),
        (lambda t: t.update(schema_version=[2]), r"schema_version is \[2\], this release reads"),
        (lambda t: t["layers"][0].update(spreads={"3x3-3": -0.1}), "spread of 3x3-3 is -0.1"),
        (lambda t: t.update(correction={"scale": 1.0}), "the key 'intercept' is missing"),
        (
            lambda t: t.update(correction=nan_correction("scale")),
            "not valid JSON .NaN is no number",
        ),
    ],
)
def test_bad_tables(tmp_path: Path, edit: Any, message: str) -> None:
    data = json.loads(config_path("latency", "pixel1.json").read_text())
    edit(data)
    (tmp_path / "t.json").write_text(json.dumps(data).replace("Infinity", "1e999"))
    with pytest.raises(UserError, match=message):
        LatencyTable.load(tmp_path / "t.json")


@pytest.mark.parametrize("name", named_files("latency"))
def test_shipped_tables_predict_the_published_network(name: str) -> None:
    table = LatencyTable.load(name)
    around_lite = "lite0" in name
    base = load_architecture("efficientnet_lite0" if around_lite else "spnas_100")
    assert 0 < table.corrected_constant < predict_runtime(base, table)
    if not around_lite:
        assert layer_runtimes(uniform(lambda i: mbconv(5, 6, 0.25)), table)[1] == {}


def test_unknown_table() -> None:
    with pytest.raises(UserError, match="unknown latency table 'pixel9'; expected one of .*pixel1"):
        LatencyTable.load("pixel9")


@pytest.mark.parametrize("name", ["intercept", "scale", "per_layer", "per_se"])
def test_a_correction_is_made_of_numbers(table: LatencyTable, name: str) -> None:
    correction = Correction(**nan_correction(name))
    with pytest.raises(UserError, match=f"correction: {name} is nan"):
        dataclasses.replace(table, correction=correction)
