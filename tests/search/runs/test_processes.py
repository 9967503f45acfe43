"""Two processes on the CPU: every kind of training runs, and both hold one network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.env import seed_all_rng
from torch import Tensor

from backbones.weights import read_checkpoint
from detection.engine.processes import Place, join_group, leave_group
from detection.engine.trainer import unwrap_ddp
from detection.trainer import DetectionTrainer
from search.classification.classifier import ClassifierTrainer
from search.config import load_search_config
from search.runs.classification import SearchTrainer
from search.runs.detector import DetectorSearchTrainer
from tests.search.conftest import SHORT, make_cfg
from tests.tiny_coco import TINY_MODEL

FORMULATIONS = ("sigmoid", "multi-path-gumbel", "evolution", "taylor")
SMALL = (
    *("SEARCH.HELD_OUT", "0.5", "SEARCH.CALIBRATION_BATCHES", "1", "SEARCH.EVOLUTION.POPULATION"),
    *("2", "SEARCH.EVOLUTION.GENERATIONS", "0", "SEARCH.EVOLUTION.CALIBRATION_BATCHES", "1"),
    *("SEARCH.SENSITIVITY.ROUNDS", "1", "SEARCH.SENSITIVITY.IMAGES", "4"),
    *("SEARCH.SENSITIVITY.CALIBRATION_BATCHES", "1", "SEARCH.SUBSET_DROPOUT", "0.5", *SHORT),
)


def search(formulation: str, images: Path, folder: Path) -> SearchTrainer:
    options = ("SEARCH.FORMULATION", formulation, *SMALL)
    return SearchTrainer(make_cfg("search/digits_small.yaml", images, folder, *options))


def classifier(images: Path, folder: Path) -> ClassifierTrainer:
    options = ("MODEL.SPNAS.ARCH", "mnasnet_b1", "MODEL.SPNAS.WIDTH_MULT", "0.25", *SHORT)
    average = ("CLASSIFICATION.EMA_DECAY", "0.5")
    return ClassifierTrainer(
        make_cfg("classification/digits.yaml", images, folder, *options, *average)
    )


def detector(folder: Path) -> DetectionTrainer:
    config = "detection/mask_rcnn_spnas_fpn_digits.yaml"
    return DetectionTrainer(_detector_cfg(config, folder, "MODEL.SPNAS.ARCH", "mnasnet_b1"))


def detector_search(folder: Path) -> DetectorSearchTrainer:
    table = ("SEARCH.LATENCY_TABLE", "pixel1", "SEARCH.DEPLOY_SIZE", "[224, 224]")
    options = ("SEARCH.TARGET", "80.0", "SEARCH.CALIBRATION_BATCHES", "1", *table)
    return DetectorSearchTrainer(_detector_cfg("search/mask_rcnn_digits.yaml", folder, *options))


def _detector_cfg(config: str, folder: Path, *more: str) -> Any:
    opts = [
        *(*TINY_MODEL, "DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "('tiny_val',)"),
        *("SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()", "OUTPUT_DIR", str(folder), *more),
    ]
    return load_search_config(config, opts)


def trained(make: Callable[[Path], Any], folder: Path, rank: int = 0) -> dict[str, Any]:
    """What a short training leaves in this process."""
    seed_all_rng(rank)
    trainer = make(folder)
    decided: list[Tensor] = []
    step = trainer.run_step

    def run_step() -> None:
        step()
        supernet = getattr(trainer, "supernet", None)
        if trainer.iter == 0 and supernet is not None:
            weights = [vars(decision) for decision in supernet.drawn]
            decided.extend(w.detach().clone() for layer in weights for w in layer.values())

    trainer.run_step = run_step
    trainer.train()
    latest = trainer.storage.latest()
    model = unwrap_ddp(trainer.model)
    average = getattr(trainer, "ema", None)
    names = ("total_loss", "train/top1", "loss_ce", "search/lambda")
    return {
        "metrics": {name: latest[name][0] for name in names if name in latest},
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "average": average.module.state_dict() if average else {},
        "decided": decided,
    }


def makers(images: Path) -> dict[str, Callable[[Path], Any]]:
    found: dict[str, Callable[[Path], Any]] = {
        name: lambda folder, name=name: search(name, images, folder) for name in FORMULATIONS
    }
    return {
        **found,
        "classifier": lambda folder: classifier(images, folder),
        "detector": detector,
        "detector_search": detector_search,
    }


def _two_ranks(rank: int, base: str, images: str, annotations: str) -> None:
    torch.set_num_threads(1)
    folder = Path(base)
    join_group(Place(rank, 2, rank, f"file://{base}/meet"), on_gpu=False)
    for name in ("tiny_train", "tiny_val"):
        register_coco_instances(name, {}, annotations, str(Path(annotations).parent))
    found = {
        name: trained(make, folder / name, rank) for name, make in makers(Path(images)).items()
    }
    torch.save(found, folder / f"found{rank}.pth")
    leave_group()


@pytest.fixture(scope="module")
def folder(images: Path, tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNINGS", "ignore")  # of libraries, in the new processes
        patch.syspath_prepend(Path(__file__).parents[3])  # for them to find this module
        mp.spawn(_two_ranks, (str(base), str(images), str(tiny_coco)), nprocs=2)
    return base


@pytest.fixture(scope="module")
def ranks(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    first, second = (torch.load(folder / f"found{rank}.pth") for rank in (0, 1))
    return first, second


RUNS = (*FORMULATIONS, "classifier", "detector", "detector_search")


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_both_hold_what_is_saved(
    name: str, folder: Path, ranks: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Weights, decisions, statistics and averages."""
    saved = read_checkpoint(folder / name / "model_final.pth")
    for rank in ranks:
        for kind, states in (("state", saved["model"]), ("average", saved.get("ema", {}))):
            for key, value in rank[name][kind].items():
                assert torch.equal(value, states[key if kind == "state" else f"module.{key}"]), key
    statistics = [key for key in saved["model"] if key.endswith("running_mean")]
    assert statistics
    assert (folder / name / "results.json").exists()


@pytest.mark.parametrize("name", [*FORMULATIONS, "classifier"])
def test_metrics_are_of_both(name: str, ranks: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = (rank[name]["metrics"] for rank in ranks)
    assert first == second
    assert {"total_loss", "train/top1"} <= set(first)


def test_the_exported_file_has_the_scores_of_the_results(
    folder: Path, images: Path, tmp_path: Path
) -> None:
    options = ("MODEL.SPNAS.ARCH", str(folder / "classifier" / "architecture.json"))
    weights = ("MODEL.WEIGHTS", str(folder / "classifier" / "backbone.pth"))
    cfg = make_cfg("classification/digits.yaml", images, tmp_path, *options, *weights, *SHORT)
    alone = ClassifierTrainer(cfg).evaluate_only()["val"]
    results = json.loads((folder / "classifier" / "results.json").read_text())
    assert results["classification"]["val"] == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("name", ["sigmoid", "multi-path-gumbel"])
def test_one_process_draws_the_same_decisions(
    name: str,
    images: Path,
    tmp_path: Path,
    ranks: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """Subsets that are dropped, and Gumbel's noise, whatever else a process has drawn."""
    alone = trained(makers(images)[name], tmp_path, rank=5)
    for rank in ranks:
        assert alone["decided"]
        for own, theirs in zip(alone["decided"], rank[name]["decided"], strict=True):
            torch.testing.assert_close(own, theirs)


def test_a_process_that_decides_otherwise_is_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is called with what decides, while training."""
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(
        "search.runs.runtime_loss.check_same",
        lambda what, tensors: seen.append((what, len(list(tensors)))),
    )
    trained(makers(images)["sigmoid"], tmp_path)
    assert len(seen) == 4 and {what for what, _ in seen} == {"the decisions"}
    assert min(count for _, count in seen) > 4
