"""Search and classifier training: a few steps, resumed, exported, and refused."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import CfgNode, get_cfg
from detectron2.utils.env import seed_all_rng

from backbones import Architecture, LatencyTable, UserError, create_model, predict_runtime
from backbones.paths import config_path
from backbones.weights import read_checkpoint
from search.classifier import ClassifierTrainer
from search.config import add_search_config
from search.study import METHODS
from search.trainer import SearchTrainer

SHORT = ("SOLVER.WARMUP_EPOCHS", "0.0")
ROOT = Path(__file__).resolve().parents[2]


def overrides(images: Path, output: Path) -> list[str]:
    """Four steps on small images."""
    return [
        *("CLASSIFICATION.DATASET", str(images), "CLASSIFICATION.NUM_CLASSES", "2"),
        *("CLASSIFICATION.INPUT_SIZE", "32", "CLASSIFICATION.EPOCHS", "1.0"),
        *("CLASSIFICATION.CHECKPOINT_EPOCHS", "0.5", "CLASSIFICATION.DROP_RATE", "0.1"),
        *("SOLVER.IMS_PER_BATCH", "4", "SEARCH.CALIBRATION_BATCHES", "2", "VIS_PERIOD", "1"),
        *("OUTPUT_DIR", str(output), "WANDB.ENABLED", "False"),
    ]


def make_cfg(config: str, images: Path, output: Path, *more: str) -> CfgNode:
    cfg = get_cfg()
    add_search_config(cfg)
    cfg.merge_from_file(str(config_path(*config.split("/"))))
    cfg.merge_from_list([*overrides(images, output), *more])
    return cfg


def interrupt_at(trainer: SearchTrainer | ClassifierTrainer, iteration: int) -> None:
    """Ends the training as a kill would, just before ``iteration``."""
    step = trainer.run_step

    def run_step() -> None:
        if trainer.iter == iteration:
            raise KeyboardInterrupt
        step()

    trainer.run_step = run_step  # type: ignore[method-assign]


@pytest.mark.slow
def test_search_resumes_bit_for_bit_and_exports(images: Path, tmp_path: Path) -> None:
    seed_all_rng(0)
    whole = SearchTrainer(make_cfg("search/digits.yaml", images, tmp_path / "whole"))
    whole.train()

    cfg = make_cfg("search/digits.yaml", images, tmp_path / "parts")
    seed_all_rng(0)
    first = SearchTrainer(cfg)
    interrupt_at(first, 3)  # the last checkpoint is after two steps
    with pytest.raises(KeyboardInterrupt):
        first.train()
    seed_all_rng(99)
    second = SearchTrainer(cfg)
    second.resume_or_load(resume=True)
    assert second.start_iter == 2
    second.train()
    for name, value in whole.supernet.state_dict().items():
        assert torch.equal(value, second.supernet.state_dict()[name]), name
    assert second.tradeoff.state_dict() == whole.tradeoff.state_dict()

    check_export(tmp_path / "parts", second)
    lines = (tmp_path / "parts" / "metrics.json").read_text().splitlines()
    metrics: dict[str, float] = {}
    for line in lines:
        metrics.update(json.loads(line))
    assert {"search/lambda", "search/runtime", "loss_ce", "loss_runtime", "val/top1"} <= set(
        metrics
    )
    assert sum(key.startswith("decisions/layer") for key in metrics) == 80
    assert metrics["search/threshold_gradient"] > 0


def check_export(folder: Path, trainer: SearchTrainer) -> None:
    """The files of a finished search, read as a user would."""
    architecture = Architecture.load(folder / "architecture.json")
    runtime = predict_runtime(architecture, LatencyTable.load("pixel1"))
    assert 0.97 * 80 <= runtime <= 80
    assert architecture.provenance["predicted_runtime"] == pytest.approx(runtime, abs=1e-3)
    assert architecture.provenance["latency_table"] == "pixel1"
    results = json.loads((folder / "results.json").read_text())["search"]
    assert results["predicted_runtime"] == pytest.approx(runtime, abs=1e-3)
    assert len(results["layers"]) == 20
    model = create_model(
        folder / "architecture.json", num_classes=2, checkpoint_path=folder / "backbone.pth"
    ).eval()
    state, supernet = model.state_dict(), trainer.supernet.state_dict()
    assert torch.equal(state["stem.conv.weight"], supernet["stem.conv.weight"])
    content = read_checkpoint(folder / "backbone.pth")
    assert content["matching_heuristics"] is True


def test_a_bilevel_search_takes_turns(images: Path, tmp_path: Path) -> None:
    """Even iterations move weights, odd ones path weights, on different images."""
    options = (*METHODS["softmax"].overrides, "SEARCH.THRESHOLD_IMAGES", "0.5")
    cfg = make_cfg("search/digits.yaml", images, tmp_path, *options, *SHORT)
    trainer = SearchTrainer(cfg)
    moved: list[tuple[bool, bool]] = []
    step = trainer.run_step

    def state() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        thresholds = [p.detach().clone() for p in trainer.supernet.thresholds.parameters()]
        known = {id(p) for p in trainer.supernet.thresholds.parameters()}
        weights = [p.detach().clone() for p in trainer.supernet.parameters() if id(p) not in known]
        return weights, thresholds

    def run_step() -> None:
        before = state()
        step()
        moved.append(
            tuple(  # type: ignore[arg-type]
                any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))
                for old, new in zip(before, state(), strict=True)
            )
        )

    trainer.run_step = run_step  # type: ignore[method-assign]
    trainer.train()
    assert moved == [(True, False), (False, True)] * 2
    weights, thresholds = (set(part.indices) for part in trainer.image_parts())
    assert not weights & thresholds
    assert len(weights | thresholds) == 16
    cfg.SEARCH.THRESHOLD_IMAGES = 0.01
    with pytest.raises(UserError, match=r"splits the 16 training images into 16 and 0"):
        SearchTrainer(cfg).train_batches(0)


def test_a_family_and_samples_come_with_the_network(images: Path, tmp_path: Path) -> None:
    options = ("SEARCH.FAMILY", "[60.0, 100.0]", "SEARCH.SAMPLES", "2")
    SearchTrainer(make_cfg("search/digits.yaml", images, tmp_path, *options)).train()
    results = json.loads((tmp_path / "results.json").read_text())["search"]
    assert [len(results[name]) for name in ("family", "samples")] == [2, 2]
    for target, row in zip((60, 100), results["family"], strict=True):
        folder = tmp_path / "family" / str(target)
        architecture = Architecture.load(folder / "architecture.json")
        assert 0.98 * target <= predict_runtime(architecture, LatencyTable.load("pixel1")) <= target
        assert row["architecture"] == architecture.name
        create_model(
            folder / "architecture.json", num_classes=2, checkpoint_path=folder / "backbone.pth"
        )
    assert (tmp_path / "samples" / "01" / "backbone.pth").is_file()
    with pytest.raises(UserError, match="SEARCH.FAMILY is 10 ms; the networks of search space"):
        SearchTrainer(
            make_cfg("search/digits.yaml", images, tmp_path / "b", "SEARCH.FAMILY", "[10.0]")
        )


@pytest.mark.slow
def test_classifier_learns_resumes_and_exports_its_average(images: Path, tmp_path: Path) -> None:
    more = ("CLASSIFICATION.EPOCHS", "3.0", "CLASSIFICATION.EMA_DECAY", "0.5")
    cfg = make_cfg("classification/digits.yaml", images, tmp_path / "run", *more)
    seed_all_rng(0)
    first = ClassifierTrainer(cfg)
    interrupt_at(first, 9)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = ClassifierTrainer(cfg)
    second.resume_or_load(resume=True)
    assert second.start_iter == 8
    second.train()
    assert second.ema is not None
    exported = read_checkpoint(tmp_path / "run" / "backbone.pth")["model"]
    averaged = second.ema.module.state_dict()
    assert all(torch.equal(exported[name], averaged[name]) for name in averaged)
    assert not torch.equal(exported["stem.conv.weight"], second.unwrapped.stem.conv.weight)
    results = json.loads((tmp_path / "run" / "results.json").read_text())["classification"]
    assert results["architecture"] == "spnas_100"
    assert results["predicted_runtime"] == pytest.approx(80.44, abs=0.01)


def test_classifier_starts_from_a_published_file(images: Path, tmp_path: Path) -> None:
    theirs = torchvision.models.mnasnet0_5().state_dict()
    torch.save(theirs, tmp_path / "mnasnet0.5.pth")
    options = [
        *("MODEL.WEIGHTS", str(tmp_path / "mnasnet0.5.pth"), "MODEL.SPNAS.ARCH", "mnasnet_b1"),
        *("MODEL.SPNAS.WIDTH_MULT", "0.5"),
    ]
    trainer = ClassifierTrainer(
        make_cfg("classification/digits.yaml", images, tmp_path / "run", *options)
    )
    ours = trainer.unwrapped.state_dict()
    assert torch.equal(ours["stem.conv.weight"], theirs["layers.0.weight"])
    assert torch.equal(ours["head.conv.weight"], theirs["layers.14.weight"])
    assert ours["classifier.weight"].shape == (2, 1280)


def test_search_decides_from_the_live_supernet(images: Path, tmp_path: Path) -> None:
    cfg = make_cfg("search/digits.yaml", images, tmp_path, "CLASSIFICATION.EMA_DECAY", "0.9")
    with pytest.raises(UserError, match="a search decides from the live supernet"):
        SearchTrainer(cfg)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SEARCH.TARGET", "20.0", "SEARCH.TARGET is 20 ms; the networks .* take 30.63 to 131.46"),
        ("SEARCH.SPACE", "mars", "unknown search space 'mars'"),
        ("SEARCH.LATENCY_TABLE", "pixel9", "unknown latency table 'pixel9'"),
        ("SEARCH.RUNTIME_MODEL", "magic", "unknown SEARCH.RUNTIME_MODEL 'magic'"),
        ("SEARCH.BUDGET_END", "0.05", "expected 0 ≤ BUDGET_START < BUDGET_END"),
        ("SEARCH.IMPORTANCE", "magic", "unknown importance 'magic'"),
        ("SOLVER.IMS_PER_BATCH", "0", "SOLVER.IMS_PER_BATCH is 0"),
        ("CLASSIFICATION.NUM_CLASSES", "5", "has 2 class folders"),
    ],
)
def test_wrong_keys(images: Path, tmp_path: Path, key: str, value: str, message: str) -> None:
    cfg = make_cfg("search/digits.yaml", images, tmp_path, key, value)
    with pytest.raises(UserError, match=message):
        SearchTrainer(cfg).train()


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("search_net.py", ["--config-file", "nowhere.yaml"], "nowhere.yaml"),
        ("search_net.py", ["SEARCH.TARGT", "70"], "SEARCH.TARGET"),
        (
            "search_net.py",
            ["--config-file", "search/digits.yaml", "CLASSIFICATION.DATASET", "/nowhere"],
            "no folder '/nowhere'",
        ),
        ("train_classifier.py", ["MODEL.SPNAS.ARCH", "resnet"], "unknown architecture 'resnet'"),
        ("train_classifier.py", ["MODEL.WEIGHTS", "none.pth"], "no checkpoint at 'none.pth'"),
        ("train_classifier.py", ["--eval-only", *SHORT], "--eval-only needs MODEL.WEIGHTS"),
    ],
)
def test_tools_answer_mistakes_in_one_line(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tool: str,
    arguments: list[str],
    message: str,
) -> None:
    options = [a for a in arguments if a.startswith("--") or a.endswith(".yaml")]
    keys = [a for a in arguments if a not in options]
    command = [tool, *options, *overrides(images, tmp_path / "out"), *keys]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    assert ending.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
