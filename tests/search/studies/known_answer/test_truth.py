"""The regret against a loop over a made-up truth; spreads against scipy; what a truth lacks."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import spearmanr

from backbones import UserError
from backbones.files import write_json
from search.studies.known_answer.truth import MEASURES, TrueNetwork, Truth

SEEDS = range(3)


def made_up(rng: random.Random, count: int = 40) -> list[dict[str, Any]]:
    """Networks whose accuracy says little of their runtime."""
    rows = []
    for index in range(count):
        middle = rng.uniform(50, 90)
        top1 = {seed: middle + rng.gauss(0, 2) for seed in SEEDS}
        loss = {seed: 3 - top1[seed] / 40 + rng.gauss(0, 0.05) for seed in SEEDS}
        runtime = rng.uniform(1, 3)
        rows.append({"layers": f"net{index}", "runtime": runtime, "top1": top1, "loss": loss})
    return rows


def truth_of(rows: list[dict[str, Any]]) -> Truth:
    return Truth(
        [TrueNetwork(row["layers"], row["runtime"], {m: row[m] for m in MEASURES}) for row in rows],
        "ms",
    )


@pytest.mark.parametrize("target", [1.3, 2.0, 3.0])
def test_regret_is_what_a_loop_over_the_networks_gives(rng: random.Random, target: float) -> None:
    rows = made_up(rng)
    truth = truth_of(rows)
    fast_enough = [row for row in rows if row["runtime"] <= target]
    for measure, better in (("top1", max), ("loss", min)):
        best = None
        for row in fast_enough:
            mean = sum(row[measure].values()) / len(SEEDS)
            best = mean if best is None else better(best, mean)
        assert best is not None
        regrets = {}
        for row in fast_enough:
            expected = abs(best - sum(row[measure].values()) / len(SEEDS))
            assert truth.regret(row["layers"], target, measure) == pytest.approx(expected)
            regrets[row["layers"]] = expected
        assert min(regrets.values()) == 0
        near = [row["layers"] for row in fast_enough if row["runtime"] >= 0.8 * target]
        expected = statistics.fmean(regrets[layers] for layers in near)
        assert truth.chance(target, 0.2, measure) == pytest.approx(expected)


def test_the_band_has_every_network_between_its_ends(rng: random.Random) -> None:
    rows = made_up(rng)
    found = {network.layers for network in truth_of(rows).band(2.0, 0.25)}
    assert found == {row["layers"] for row in rows if 1.5 <= row["runtime"] <= 2.0}
    assert len(found) > 3


def test_spreads_and_ranks(rng: random.Random) -> None:
    rows = made_up(rng, 400)
    found = truth_of(rows).reliability("top1")
    assert found["seeds"] == pytest.approx(2, rel=0.1)
    assert found["architectures"] == pytest.approx(40 / 12**0.5, rel=0.1)
    assert found["ratio"] == found["architectures"] / found["seeds"]
    columns = [[row["top1"][seed] for row in rows] for seed in SEEDS]
    pairs = [spearmanr(a, b).statistic for a, b in itertools.combinations(columns, 2)]
    assert found["rank_correlation"] == pytest.approx(statistics.fmean(pairs))


def test_spreads_by_hand() -> None:
    """Variances with one degree of freedom less; seeds are paired, whatever their order."""
    rows = {"a": {0: 1.0, 1: 3.0}, "b": {1: 5.0, 0: 8.0}, "c": {0: 6.0, 1: 9.0}}
    truth = Truth([TrueNetwork(name, 1.0, {"top1": row}) for name, row in rows.items()])
    seeds = statistics.fmean(statistics.variance(row.values()) for row in rows.values())
    means = statistics.variance(statistics.fmean(row.values()) for row in rows.values())
    found = truth.reliability()
    assert found["seeds"] == pytest.approx(seeds**0.5)
    assert found["architectures"] == pytest.approx((means - seeds / 2) ** 0.5)
    assert found["rank_correlation"] == pytest.approx(0.5)  # ranks 1 3 2 and 1 2 3
    same = [TrueNetwork(name, 1.0, {"top1": {0: 1.0, 1: 3.0}}) for name in "ab"]
    alike = Truth(same).reliability()
    assert (alike["architectures"], alike["ratio"]) == (0, 0)
    assert math.isnan(alike["rank_correlation"])
    certain = [TrueNetwork(str(top1), 1.0, {"top1": {0: top1, 1: top1}}) for top1 in (1.0, 2.0)]
    assert Truth(certain).reliability()["ratio"] == math.inf
    for networks in (same[:1], [TrueNetwork(n, 1.0, {"top1": {0: 1.0}}) for n in "ab"]):
        with pytest.raises(UserError, match="at least two of each: raise --seeds"):
            Truth(networks).reliability()


def test_a_network_exactly_at_the_target_is_fast_enough() -> None:
    """Also where the target went through a file, which rounds it."""
    truth = Truth([TrueNetwork("a", 2.0, {"top1": {0: 50.0}})])
    for target in (2.0, 2.0 - 1e-9):
        assert truth.regret("a", target) == 0
    with pytest.raises(UserError, match="no network within inf % below 1.999"):
        truth.band(1.999)


def test_seeds_alone_are_no_spread_of_architectures(rng: random.Random) -> None:
    """The variance of means over few seeds has a part of the seeds', which is taken out."""
    rows = made_up(rng, 400)
    for row in rows:
        row["top1"] = {seed: rng.gauss(80, 2) for seed in SEEDS}
    found = truth_of(rows).reliability("top1")
    assert found["architectures"] < 0.6  # uncorrected, it would be 2/√3 = 1.15
    assert abs(found["rank_correlation"]) < 0.1


def test_what_the_truth_does_not_hold(rng: random.Random) -> None:
    truth = truth_of(made_up(rng))
    with pytest.raises(UserError, match=r"no network '5x5-9'; its 40 are like 'net0'"):
        truth.regret("5x5-9", 2.0)
    slow = next(n for n in truth.networks.values() if n.runtime > 2.0)
    with pytest.raises(UserError, match="more than the target, 2"):
        truth.regret(slow.layers, 2.0)
    with pytest.raises(UserError, match="ask for another target"):
        truth.band(0.5)


def test_a_file_that_is_not_finished_is_refused(rng: random.Random, tmp_path: Path) -> None:
    networks = made_up(rng)
    trials = [
        {**network, "seed": seed, **{measure: network[measure][seed] for measure in MEASURES}}
        for seed in SEEDS
        for network in networks
    ]
    data = {"command": "x", "unit": "ms", "size": len(networks), "trials": trials}
    write_json(tmp_path / "truth.json", data)
    assert Truth.load(tmp_path / "truth.json").networks == truth_of(networks).networks
    del trials[3]
    write_json(tmp_path / "truth.json", data)
    with pytest.raises(UserError, match="119 trainings of 40 networks"):
        Truth.load(tmp_path / "truth.json")
    data["trials"] = [trial for trial in trials if trial["layers"] != "net3"]
    write_json(tmp_path / "truth.json", data)
    with pytest.raises(UserError, match="39 networks, and the space has 40"):
        Truth.load(tmp_path / "truth.json")
    write_json(tmp_path / "truth.json", {"trials": []})
    with pytest.raises(UserError, match="is not a truth"):
        Truth.load(tmp_path / "truth.json")
