"""Studies resume, and their summaries are means and spreads over seeds."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode

from backbones.errors import UserError
from backbones.files import read_json
from search.config import load_search_config
from search.space import SearchSpace
from search.studies.methods import study as module
from search.studies.methods.study import (
    METHODS,
    Method,
    live_thresholds,
    method_rows,
    run_study,
    run_trial,
)
from search.studies.methods.tables import study_table

TRIALS = [
    (METHODS[name], target, seed)
    for seed in range(2)
    for target in (60.0, 80.0)
    for name in ("single-path", "random")
]


def fake_trial(
    search: Any, classifier: Any, method: Method, target: float, seed: int
) -> dict[str, Any]:
    value = target + 10.0 * seed + 5 * method.searches
    known = {"method": method.name, "target": target, "seed": seed}
    return {**known, "top1": value, "loss": 2 - value / 100, "runtime": target}


def tiny(images: Path, *options: str) -> tuple[CfgNode, CfgNode]:
    """Configurations of search and classifier for a few images."""
    opts = [
        *("CLASSIFICATION.DATASET", str(images), "CLASSIFICATION.NUM_CLASSES", "2"),
        *("CLASSIFICATION.INPUT_SIZE", "32", "CLASSIFICATION.EPOCHS", "1.0"),
        *("SOLVER.IMS_PER_BATCH", "4", *options),
    ]
    search, classifier = (
        load_search_config(f"{stage}/digits.yaml", opts) for stage in ("search", "classification")
    )
    return search, classifier


def test_an_interrupted_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def trial(*arguments: Any) -> dict[str, Any]:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(arguments[2:])
        return fake_trial(*arguments)

    monkeypatch.setattr(module, "run_trial", trial)
    output = tmp_path / "study.json"
    search, classifier = (
        load_search_config(f"{s}/digits.yaml") for s in ("search", "classification")
    )
    with pytest.raises(KeyboardInterrupt):
        run_study(search, classifier, TRIALS, output, {"command": "x"})
    assert len(read_json(output, "study")["trials"]) == 3
    again = []
    monkeypatch.setattr(module, "run_trial", lambda *a: again.append(a) or fake_trial(*a))
    whole = run_study(search, classifier, TRIALS, output, {"command": "x"})
    assert len(again) == 5
    seen = [(trial["method"], trial["target"], trial["seed"]) for trial in whole["trials"]]
    assert seen == [(method.name, target, seed) for method, target, seed in TRIALS]
    assert read_json(output, "study") == whole
    shorter = load_search_config("classification/digits.yaml", ["CLASSIFICATION.EPOCHS", "1.0"])
    with pytest.raises(
        UserError, match=r"recipe training.CLASSIFICATION.EPOCHS \S+, and this is .* 1.0;"
    ):
        run_study(search, shorter, TRIALS, output, {"command": "x"})


def test_summary_is_mean_and_sample_deviation() -> None:
    none: Any = None
    trials = [
        fake_trial(none, none, METHODS[name], 60.0, seed)
        for seed in range(4)
        for name in ("single-path", "random")
    ]
    mine, chance = method_rows(trials)
    values = [65.0, 75.0, 85.0, 95.0]
    assert (mine["method"], mine["target"], mine["seeds"]) == ("single-path", 60.0, 4)
    assert mine["top1_mean"] == statistics.mean(values)
    assert mine["top1_std"] == pytest.approx(statistics.stdev(values))
    assert mine["margin_top1"] == pytest.approx(5 / statistics.stdev(values))
    assert mine["margin_loss"] == pytest.approx(5 / statistics.stdev(values))
    assert chance["margin_top1"] is None and chance["margin_loss"] is None
    assert mine["furthest"] == 0
    off = [{**trials[0], "runtime": runtime} for runtime in (60.3, 58.8, 59.9)]
    assert method_rows(off)[0]["furthest"] == pytest.approx(0.02)
    assert method_rows(trials[:1])[0]["margin_top1"] is None
    tied = method_rows([trials[0], trials[1], {**trials[1], "seed": 1}])
    assert [row["margin_top1"] for row in tied] == [None, None]
    text = study_table({"summary": [mine, chance], "unit": "ms"})
    assert "| `single-path` | 60 ms" in text
    assert "+0.4 σ" in text


def test_spread_within_a_search_is_pooled() -> None:
    none: Any = None
    trials = [fake_trial(none, none, METHODS["softmax"], 60.0, seed) for seed in range(3)]
    for trial, values in zip(trials, ([50, 54, 58], [70, 70, 73]), strict=False):
        trial["samples"] = [{"top1": float(value), "runtime": 61.0} for value in values]
    (row,) = method_rows(trials)
    variances = [statistics.variance([50, 54, 58]), statistics.variance([70, 70, 73])]
    assert row["intra"] == pytest.approx((sum(variances) / 2) ** 0.5)
    assert "| 3.08" in study_table({"summary": [row], "unit": "ms"})


def test_samples_of_a_search_are_trained(images: Path) -> None:
    trial = run_trial(*tiny(images, "SEARCH.SAMPLES", "2"), METHODS["single-path"], 70.0, 0)
    assert len(trial["samples"]) == 2
    for sample in trial["samples"]:
        assert len(sample["layers"].split()) == 20
        assert 0 <= sample["top1"] <= 100


def test_a_random_network_is_trained_at_the_target(images: Path) -> None:
    """The whole trial but the search, on a few images."""
    trial = run_trial(*tiny(images), METHODS["random"], 70.0, 3)
    assert 69.3 <= trial["runtime"] <= 70.0
    assert (trial["method"], trial["target"], trial["seed"]) == ("random", 70.0, 3)
    assert len(trial["layers"].split()) == 20
    assert 0 <= trial["top1"] <= 100


def test_thresholds_alive_at_full_width(space: SearchSpace) -> None:
    assert live_thresholds(space, "relative") > 0.95
    assert live_thresholds(space, "norm") > 0.95
    assert live_thresholds(space, "literal") < 0.5
