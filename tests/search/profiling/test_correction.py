"""Corrections: fitted, refused with a reason, and never such that more counts as faster."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backbones import LatencyTable, UserError, load_architecture
from backbones.latency import Correction, LeastCosts, layer_runtimes
from backbones.schema import named_files
from detection.deployment import Deployment
from search.profiling.correction import fit_correction, network_features
from search.profiling.profiler import profile_space
from search.profiling.workload import choices_named, random_networks
from search.runs.build import build_runtime_model
from search.selection.runtime import runtime_entries
from search.space import SearchSpace
from search.start.around import Options, space_around
from tests.search.conftest import make_cfg
from tests.search.profiling.conftest import KnownEngine

DEPLOYMENT = Deployment("classification", (64, 64))
NOTHING = LeastCosts(constant=0.1, layer=0.2, se=0.0)


def profile(space: SearchSpace, engine: KnownEngine, folder: Path) -> LatencyTable:
    return profile_space(space, engine, DEPLOYMENT, folder / "known.json", 6, 16)


def check_order(space: SearchSpace, table: LatencyTable) -> None:
    """Corrected, a layer takes no less than none, SE than no SE, and an order is as measured."""
    plain = runtime_entries(space, dataclasses.replace(table, correction=None)).numpy()
    entries = runtime_entries(space, table).numpy()
    assert table.corrected_constant > 0
    assert (entries >= 0).all()
    slower = plain[..., 1:] >= plain[..., :1]
    assert (entries[..., 1:] >= entries[..., :1] - 1e-9)[slower].all()
    for se in range(len(space.se_ratios)):
        before, after = (found[..., se].reshape(len(found), -1) for found in (plain, entries))
        steps = np.take_along_axis(after, before.argsort(), axis=1)
        assert (np.diff(steps) >= -1e-9).all()


def test_against_the_normal_equations() -> None:
    """Weighted least squares with a known answer, noise, and a column that tells nothing."""
    rng = np.random.default_rng(0)
    features = rng.uniform(1, 3, (40, 4))
    features[:, 0], features[:, 3] = 1, 0
    measured = features @ [0.2, 1.3, -0.1, 0] * (1 + 0.01 * rng.standard_normal(40))
    fit, refused = fit_correction(
        {str(i): row for i, row in enumerate(features)}, measured, NOTHING
    )
    assert refused == ""
    assert fit is not None
    weighted = features[:, :3] / measured[:, None]
    expected = np.linalg.solve(weighted.T @ weighted, weighted.sum(0))
    assert [fit.intercept, fit.scale, fit.per_layer] == pytest.approx(expected)
    assert fit.per_se == 0
    assert 0.3 < fit.error < 1.5  # |noise| of 1 % has mean 0.8 %


def test_the_profile_of_a_busy_machine(
    small_space: SearchSpace,
    engine: KnownEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Networks that were measured the faster the larger their layers are steer no search."""
    monkeypatch.setattr(KnownEngine, "whole", (9.0, -0.76, 1.8, 0.0))
    profile(small_space, engine, tmp_path)
    table = LatencyTable.load(tmp_path / "known.json")
    assert table.correction is None
    assert table.correction_refused == "scale is 0, so larger layers would not count as slower"
    assert f"networks are predicted by plain sums: {table.correction_refused}" in caplog.text
    check_order(small_space, table)


def test_random_measurements_turn_no_order_round(
    small_space: SearchSpace, engine: KnownEngine, tmp_path: Path
) -> None:
    """What is made up keeps the plain sum, or has a correction under which more takes longer."""
    table = profile(small_space, engine, tmp_path)
    plain = dataclasses.replace(table, correction=None)
    features = {}
    for types, network in random_networks(small_space, 24, seed=3).items():
        found, _ = layer_runtimes(network, plain)
        kinds = [network.layers[index].type for index in found]
        features[types] = network_features(kinds, list(found.values()), plain.constant.runtime)
    matrix, rng, taken = np.array(list(features.values())), np.random.default_rng(0), 0
    for _ in range(200):
        truth = rng.normal([1, 0.5, 0, 0], [1, 1, 0.2, 0.2])
        measured = np.abs(matrix @ truth) * rng.lognormal(0, rng.uniform(0, 0.5), len(matrix))
        fit, refused = fit_correction(features, measured + 0.01, plain.least)
        assert (fit is None) == bool(refused)
        if fit:
            taken += 1
            check_order(small_space, dataclasses.replace(plain, correction=fit))
    assert 20 < taken < 180


def made_up(count: int) -> tuple[dict[str, list[float]], NDArray[np.floating]]:
    """Networks of one to three layers, and their sums."""
    rng = random.Random(0)
    rows = {str(i): [1.0, rng.uniform(2, 4), float(rng.randint(1, 3)), 0.0] for i in range(count)}
    return rows, np.array([row[1] for row in rows.values()])


def test_what_predicts_no_better_is_refused() -> None:
    features, sums = made_up(16)
    fit, refused = fit_correction(features, sums * 1.0, NOTHING)
    assert fit is None
    assert "it errs by" in refused
    few = dict(list(features.items())[:7])
    assert fit_correction(few, sums[:7], NOTHING) == (
        None,
        "fitted on 7 networks, where it takes 8 or more",
    )


def test_a_smaller_error_in_a_worse_order_is_refused() -> None:
    """The mean of all networks is 1 % off, the sum 50 %, but the sum knows the order."""
    features, sums = made_up(16)
    order = sums.argsort().argsort()
    noise = np.where(order % 2, 0.004, -0.004)
    features = {key: [*row[:2], float(place % 2), 0.0] for (key, row), place in
                zip(features.items(), order, strict=True)}  # fmt: skip
    measured = 2 + 0.001 * order - noise * (order > 12)
    fit, refused = fit_correction(features, measured, NOTHING)
    assert fit is None
    assert "it ranks networks left out of the fit worse" in refused


def test_runtimes_that_are_all_the_same() -> None:
    features, sums = made_up(16)
    fit, refused = fit_correction(features, np.full(16, 2.0), NOTHING)
    assert fit is None
    assert refused
    flat = {key: [1.0, 2.0, 1.0, 0.0] for key in features}
    fit, refused = fit_correction(flat, sums, NOTHING)
    assert fit is None


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        ((-5.9, -0.76, 1.8, 0), "scale is -0.76, so larger layers would not count as slower"),
        ((0.1, 0.0, 0.0, 0), "scale is 0, so larger"),
        ((-99.0, 1.0, 0.0, 0), "the parts that are not searched would take -"),
        ((0.0, 1.0, -9.0, 0), "per_layer is -9, so a layer of 1.232 would save time"),
        ((0.0, 1.0, 0.0, -0.1), "per_se is -0.1, so squeeze-and-excitation would save time"),
    ],
)
def test_an_inverted_table_steers_no_search(
    images: Path,
    space: SearchSpace,
    table: LatencyTable,
    tmp_path: Path,
    fit: tuple[float, float, float, float],
    message: str,
) -> None:
    """One that is made by hand, or by an earlier release."""
    data = table.to_dict()
    keys = ("intercept", "scale", "per_layer", "per_se")
    data["correction"] = {**dict(zip(keys, fit, strict=True)), "networks": {}, "error": 1.0}
    path = tmp_path / "by_hand.json"
    path.write_text(json.dumps(data))
    options = ("SEARCH.LATENCY_TABLE", str(path))
    cfg = make_cfg("search/digits.yaml", images, tmp_path / "run", *options)
    with pytest.raises(UserError, match=f"latency table 'pixel1': correction: {message}"):
        build_runtime_model(cfg, space)


@pytest.mark.parametrize("name", [n for n in named_files("latency") if n != "pixel1"])
def test_shipped_corrections_are_fitted_and_taken_as_they_are(
    name: str, space: SearchSpace
) -> None:
    table = LatencyTable.load(name)
    if "lite0" in name:
        space, _ = space_around(load_architecture("efficientnet_lite0"), Options())
    known = table.correction
    if known is None:
        assert table.correction_refused
        check_order(space, table)
        return
    plain = dataclasses.replace(table, correction=None)
    features = {}
    for types in known.networks:
        network = space.architecture(choices_named(space, types), "fitted")
        found, _ = layer_runtimes(network, plain)
        kinds = [network.layers[index].type for index in found]
        features[types] = network_features(kinds, list(found.values()), plain.constant.runtime)
    fit, refused = fit_correction(features, list(known.networks.values()), plain.least)
    assert refused == ""
    assert isinstance(fit, Correction)
    for key in ("intercept", "scale", "per_layer", "per_se", "error"):
        assert getattr(fit, key) == pytest.approx(getattr(known, key), rel=1e-2, abs=1e-3)
    check_order(space, table)
