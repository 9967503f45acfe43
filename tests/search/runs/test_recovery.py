"""Runs that are killed at their worst moments: what they leave is what they would have left."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from backbones import Architecture, UserError
from detection.engine.metrics import read_metrics
from detection.engine.results import results_part
from detection.trainer import DetectionTrainer
from search.classification.calibration import calibrated
from search.classification.classifier import ClassifierTrainer
from search.classification.data import build_dataset
from search.config import load_search_config
from search.runs.classification import SearchTrainer
from search.runs.detector import DetectorSearchTrainer
from search.runs.run import run_search
from search.studies.kills.differences import first_difference
from tests.run_contents import assert_same_runs, contents
from tests.search.conftest import SHORT, make_cfg
from tests.tiny_coco import TINY_MODEL

EVALUATED = ("CLASSIFICATION.EVAL_EPOCHS", "0.5", *SHORT)
"""After two of the four steps, where there is a checkpoint as well."""

Trainer = SearchTrainer | ClassifierTrainer | DetectionTrainer


class Killed(BaseException):
    """What no code of a run handles."""


def kill(trainer: Trainer) -> NoReturn:
    trainer.after_train = lambda: None
    raise Killed


def kill_behind_checkpoint(trainer: Trainer, name: str) -> None:
    """Before evaluation, writers and results get to their part."""
    save = trainer.checkpointer.save

    def killed(saved: str, **kwargs: Any) -> None:
        save(saved, **kwargs)
        if saved == name:
            kill(trainer)

    trainer.checkpointer.save = killed


def search(images: Path, folder: Path) -> SearchTrainer:
    options = ("SEARCH.FAMILY", "[0.5]", "SEARCH.SAMPLES", "1", *EVALUATED)
    return SearchTrainer(make_cfg("search/digits_small.yaml", images, folder, *options))


def classifier(images: Path, folder: Path) -> ClassifierTrainer:
    options = ("MODEL.SPNAS.ARCH", "mnasnet_b1", "MODEL.SPNAS.WIDTH_MULT", "0.25")
    cfg = make_cfg("classification/digits.yaml", images, folder, *options, *EVALUATED)
    return ClassifierTrainer(cfg)


def detector_cfg(config: str, folder: Path, *more: str) -> CfgNode:
    torch.set_num_threads(1)
    opts = [
        *(*TINY_MODEL, "DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "('tiny_val',)"),
        *("SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()", "SOLVER.CHECKPOINT_PERIOD", "1"),
        *("TEST.EVAL_PERIOD", "1", "OUTPUT_DIR", str(folder), *more),
    ]
    return load_search_config(config, opts)


def detector(_: Path, folder: Path) -> DetectionTrainer:
    options = ("MODEL.SPNAS.ARCH", "mnasnet_b1")
    config = "detection/mask_rcnn_spnas_fpn_digits.yaml"
    return DetectionTrainer(detector_cfg(config, folder, *options))


def best_detector(_: Path, folder: Path) -> DetectionTrainer:
    best = ("SOLVER.BEST_METRIC", "validation_loss", "TEST.VALIDATION_LOSS", "True")
    options = ("MODEL.SPNAS.ARCH", "mnasnet_b1", *best)
    config = "detection/mask_rcnn_spnas_fpn_digits.yaml"
    return DetectionTrainer(detector_cfg(config, folder, *options))


def best_classifier(images: Path, folder: Path) -> ClassifierTrainer:
    options = ("MODEL.SPNAS.ARCH", "mnasnet_b1", "MODEL.SPNAS.WIDTH_MULT", "0.25")
    best = ("SOLVER.BEST_METRIC", "val/loss", "CLASSIFICATION.EMA_DECAY", "0.5")
    cfg = make_cfg("classification/digits.yaml", images, folder, *options, *EVALUATED, *best)
    return ClassifierTrainer(cfg)


def detector_search(_: Path, folder: Path) -> DetectorSearchTrainer:
    table = ("SEARCH.LATENCY_TABLE", "pixel1", "SEARCH.DEPLOY_SIZE", "[224, 224]")
    options = ("SEARCH.TARGET", "80.0", "SEARCH.CALIBRATION_BATCHES", "1", *table)
    return DetectorSearchTrainer(detector_cfg("search/mask_rcnn_digits.yaml", folder, *options))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "middle"),
    [
        (search, "model_0000001"),
        (classifier, "model_0000001"),
        (detector, "model_0000000"),
        (detector_search, "model_0000000"),
        (best_classifier, "model_0000001"),
        (best_detector, "model_0000000"),
    ],
)
def test_a_killed_run_leaves_what_the_whole_one_does(
    make: Callable[[Path, Path], Trainer],
    middle: str,
    images: Path,
    tiny_coco: Path,
    tmp_path: Path,
) -> None:
    """Killed behind a checkpoint in mid-run, and again behind the last one."""
    seed_all_rng(0)
    whole = make(images, tmp_path / "whole")
    whole.train()
    for attempt, checkpoint in enumerate((middle, "model_final")):
        seed_all_rng(7 * attempt)
        parts = make(images, tmp_path / "parts")
        parts.resume_or_load(resume=True)
        kill_behind_checkpoint(parts, checkpoint)
        with pytest.raises(Killed):
            parts.train()
        assert not (tmp_path / "parts" / "results.json").exists()
    seed_all_rng(99)
    last = make(images, tmp_path / "parts")
    last.resume_or_load(resume=True)
    last.train()
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")
    assert last.finished == whole.finished == whole.max_iter

    before = contents(tmp_path / "whole")
    again = make(images, tmp_path / "whole")
    again.resume_or_load(resume=True)
    again.train()
    assert contents(tmp_path / "whole") == before


def kill_at_results(trainer: SearchTrainer | ClassifierTrainer, written: bool) -> None:
    """Before or behind ``results.json``; the last row of metrics is still to come."""
    write = trainer.write_results

    def killed(results: Any) -> None:
        if written:
            write(results)
        kill(trainer)

    trainer.write_results = killed  # type: ignore[method-assign]


@pytest.mark.parametrize("written", [False, True])
def test_a_run_killed_at_its_results(images: Path, tmp_path: Path, written: bool) -> None:
    for name in ("whole", "parts"):
        seed_all_rng(0)
        trainer = classifier(images, tmp_path / name)
        if name == "parts":
            kill_at_results(trainer, written)
            with pytest.raises(Killed):
                trainer.train()
            trainer = classifier(images, tmp_path / name)
            trainer.resume_or_load(resume=True)
        trainer.train()
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_statistics_depend_on_the_seed_alone(images: Path, tmp_path: Path) -> None:
    """Whatever was drawn before; and what is drawn afterwards does not notice."""
    cfg = make_cfg("classification/digits.yaml", images, tmp_path, "DATALOADER.NUM_WORKERS", "1")
    data = build_dataset(cfg, "train", augment=True)
    found = []
    for drawn in (0, 5):
        torch.manual_seed(3)
        network = classifier(images, tmp_path).unwrapped
        torch.rand(drawn)
        before = torch.get_rng_state()
        found.append(calibrated(network, cfg, data, 2).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert first_difference(*found) is None


def test_a_classifiers_evaluation_changes_none_of_its_files(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    classifier(images, run).train()
    before = contents(run)
    weights = ("MODEL.WEIGHTS", str(run / "backbone.pth"), "MODEL.SPNAS.LATENCY_TABLE", "")
    files = ("MODEL.SPNAS.ARCH", str(run / "architecture.json"), *weights)
    evaluated = ClassifierTrainer(make_cfg("classification/digits.yaml", images, run, *files))
    scores = evaluated.evaluate_only()["val"]
    assert contents(run, "evaluation") == before
    assert results_part(run / "evaluation", "classification")["val"] == scores
    assert results_part(run, "classification")["val"] == scores


def test_a_classifiers_best_is_what_was_evaluated(images: Path, tmp_path: Path) -> None:
    """The averaged model; its weights are evaluated as any others."""
    trainer = best_classifier(images, tmp_path)
    trainer.train()
    best = results_part(tmp_path, "best")
    rows = [row for row in read_metrics(tmp_path) if "val/loss" in row]
    assert best["value"] == pytest.approx(min(row["val/loss"] for row in rows))
    options = ("MODEL.SPNAS.ARCH", "mnasnet_b1", "MODEL.SPNAS.WIDTH_MULT", "0.25")
    weights = ("MODEL.WEIGHTS", str(tmp_path / best["weights"]))
    cfg = make_cfg("classification/digits.yaml", images, tmp_path / "again", *options, *weights)
    scores = ClassifierTrainer(cfg).evaluate_only()["val"]
    assert scores["loss"] == pytest.approx(best["value"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("SOLVER.BEST_METRIC", "bbox/AP"), "expected one of val/top1, val/top5, val/loss"),
        (("SOLVER.EARLY_STOPPING.PATIENCE", "1"), "but SOLVER.BEST_METRIC is empty"),
        (
            ("SOLVER.BEST_METRIC", "val/top1", "CLASSIFICATION.EVAL_EPOCHS", "0.0"),
            "nothing is evaluated before the end; set CLASSIFICATION.EVAL_EPOCHS to less",
        ),
    ],
)
def test_a_classifier_knows_what_it_evaluates(
    images: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ClassifierTrainer(
            make_cfg("classification/digits.yaml", images, tmp_path, *EVALUATED, *options)
        )


def test_a_searchs_evaluation_changes_none_of_its_files(images: Path, tmp_path: Path) -> None:
    search(images, tmp_path).train()
    before = contents(tmp_path)
    seed_all_rng(99)
    search(images, tmp_path).evaluate_only()
    assert contents(tmp_path, "evaluation") == before
    found, again = (results_part(f, "search") for f in (tmp_path, tmp_path / "evaluation"))
    assert again.items() <= found.items()
    provenance = Architecture.load(tmp_path / "architecture.json").provenance
    assert provenance["iterations"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("SEARCH.EVOLUTION.POPULATION", "1"), "SEARCH.EVOLUTION.POPULATION is 1"),
        (("SEARCH.TARGET", "0.5", "SEARCH.TOLERANCE", "1e-9"), "no random network of search space"),
        (("SEARCH.FAMILY", "[0.9]"), "SEARCH.FAMILY is 0.9 MMACs"),
        (("SEARCH.FORMULATION", "sigmoid", "SEARCH.SELECTION", "odds"), "unknown SEARCH.SELECTION"),
    ],
)
def test_what_cannot_be_found_is_refused_at_the_start(
    images: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("search.selection.sampling._ATTEMPTS", 100)
    keys = ("SEARCH.FORMULATION", "evolution", "SEARCH.HELD_OUT", "0.5", *options)
    with pytest.raises(UserError, match=message):
        SearchTrainer(make_cfg("search/digits_small.yaml", images, tmp_path, *keys))


def test_a_random_search_goes_on_with_the_candidates_left(images: Path, tmp_path: Path) -> None:
    """The second candidate does not notice that the first was trained by another process."""
    keys = ("SEARCH.FORMULATION", "random", "SEARCH.HELD_OUT", "0.5", "SEARCH.CANDIDATES", "2")
    cfg = make_cfg("search/digits_small.yaml", images, tmp_path / "whole", *keys, *SHORT)
    run_search(cfg)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for left in ("results.json", "architecture.json", "backbone.pth"):
        (tmp_path / "parts" / left).unlink()
    shutil.rmtree(tmp_path / "parts" / "candidates" / "01")
    cfg.OUTPUT_DIR = str(tmp_path / "parts")
    seed_all_rng(99)
    run_search(cfg)
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")
