"""Studies resume, and their summaries are means and spreads over seeds."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from backbones import LatencyTable, predict_runtime
from backbones.errors import UserError
from backbones.files import read_json
from search.classification.classifier import ClassifierTrainer
from search.config import load_search_config
from search.space import SearchSpace
from search.studies.methods import study as module
from search.studies.methods.study import (
    METHODS,
    Method,
    draw_architecture,
    live_thresholds,
    method_rows,
    run_study,
    run_trial,
)
from search.studies.methods.tables import study_table
from search.studies.trials import check_recipe, recipe, trial_config
from tests.search.conftest import as_expected

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


def test_a_recipe_is_of_what_its_files_hold(tmp_path: Path) -> None:
    """A table profiled anew is another recipe, at the same path."""
    table = LatencyTable.load("pixel1")
    path = tmp_path / "table.json"
    table.save(path)
    cfg = load_search_config("search/digits.yaml", ["SEARCH.LATENCY_TABLE", str(path)])
    before = recipe(cfg, "SEARCH")
    assert recipe(cfg, "SEARCH") == before
    replace(table, constant=replace(table.constant, runtime=1.0)).save(path)
    with pytest.raises(UserError, match=r"recipe contents.latency_table \w+, and this is contents"):
        check_recipe("study.json", before, recipe(cfg, "SEARCH"))


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
    for trial, values in zip(trials[:2], ([50, 54, 58], [70, 70, 73]), strict=True):
        trial["samples"] = [{"top1": float(value), "runtime": 61.0} for value in values]
    (row,) = method_rows(trials)
    variances = [statistics.variance([50, 54, 58]), statistics.variance([70, 70, 73])]
    assert row["intra"] == pytest.approx((sum(variances) / 2) ** 0.5)
    assert "| 3.08" in study_table({"summary": [row], "unit": "ms"})


@pytest.fixture
def classifiers(monkeypatch: pytest.MonkeyPatch) -> list[ClassifierTrainer]:
    """The trainers of all classifiers, in the order in which they were made."""
    made: list[ClassifierTrainer] = []

    class Kept(ClassifierTrainer):
        def __init__(self, cfg: CfgNode) -> None:
            super().__init__(cfg)
            made.append(self)

    monkeypatch.setattr(module, "ClassifierTrainer", Kept)
    return made


def check_trained(record: dict[str, Any], trainer: ClassifierTrainer, seed: int) -> None:
    """The record is of this network, trained to the end with this seed, judged image by image."""
    architecture = trainer.architecture
    assert record["layers"] == " ".join(str(layer.type) for layer in architecture.layers[1:-1])
    table = LatencyTable.load("pixel1")
    assert record["runtime"] == pytest.approx(predict_runtime(architecture, table), abs=1e-4)
    assert (trainer.cfg.SEED, trainer.iter, trainer.max_iter) == (seed, 4, 4)
    model, right, losses = trainer.averaged_model.eval(), 0, []
    for image, target in (trainer.val_data[index] for index in range(16)):
        with torch.no_grad():
            logits = model(as_expected(image[None]))
        right += int(logits.argmax()) == target
        losses.append(float(logits.logsumexp(1)) - float(logits[0, target]))
    assert record["top1"] == pytest.approx(100 * right / 16)
    assert record["loss"] == pytest.approx(statistics.mean(losses), rel=1e-3)


@pytest.mark.slow
def test_samples_of_a_search_are_trained(
    images: Path, classifiers: list[ClassifierTrainer]
) -> None:
    """The network found and both samples by one recipe, each reported with its own accuracy."""
    trial = run_trial(*tiny(images, "SEARCH.SAMPLES", "2"), METHODS["single-path"], 70.0, 5)
    assert len(trial["samples"]) == 2
    for record, trainer in zip([trial, *trial["samples"]], classifiers, strict=True):
        check_trained(record, trainer, 5)
    assert 69.3 <= trial["runtime"] <= 70.0
    assert len({record["layers"] for record in trial["samples"]}) == 2


def test_a_random_network_is_trained_at_the_target(
    images: Path, classifiers: list[ClassifierTrainer]
) -> None:
    """The whole trial but the search, on a few images."""
    trial = run_trial(*tiny(images), METHODS["random"], 70.0, 3)
    assert (trial["method"], trial["target"], trial["seed"]) == ("random", 70.0, 3)
    assert 69.3 <= trial["runtime"] <= 70.0
    (trainer,) = classifiers
    check_trained(trial, trainer, 3)
    drawn = draw_architecture(trial_config(tiny(images, "SEARCH.TARGET", "70.0")[0], 3))
    assert trainer.architecture.layers == drawn.layers


def test_thresholds_alive_at_full_width(space: SearchSpace) -> None:
    assert live_thresholds(space, "relative") > 0.95
    assert live_thresholds(space, "norm") > 0.95
    assert live_thresholds(space, "literal") < 0.5
