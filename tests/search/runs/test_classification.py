"""Searches of a few steps: resumed, exported, and refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.utils.env import seed_all_rng
from torch import Tensor

from backbones import Architecture, LatencyTable, UserError, create_model, predict_runtime
from backbones.exported import save_backbone
from backbones.network import build_classifier
from backbones.weights import read_checkpoint, save_checkpoint
from detection.report import count_macs
from search.classification.data import build_dataset
from search.classification.trainer import ClassificationTrainer
from search.runs.build import build_runtime_model
from search.runs.classification import SearchTrainer
from search.runs.random_search import candidate_config, candidate_epochs, draw_candidates
from search.runs.run import run_search
from search.space import SearchSpace
from search.studies.methods.study import METHODS
from search.supernets.single_path import Supernet
from tests.search.conftest import SHORT, interrupt_at, make_cfg, write_classifier


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
    assert sum(key.startswith("decisions/layer") for key in metrics) == 160
    assert metrics["search/threshold_gradient"] > 0


def test_a_search_among_three_options_an_axis(
    images: Path, tmp_path: Path, wide_space: SearchSpace
) -> None:
    """Kernels 3, 5 and 7, expansions 3, 4 and 6, and three SE ratios, with hard-swish."""
    swish = dataclasses.replace(wide_space, activation="hard_swish", norm_eps=1e-3)
    (tmp_path / "wide.json").write_text(json.dumps(swish.to_dict()))
    options = ("SEARCH.SPACE", str(tmp_path / "wide.json"), "SEARCH.TARGET", "0.27")
    cfg = make_cfg("search/digits_small.yaml", images, tmp_path / "run", *options, *SHORT)
    trainer = SearchTrainer(cfg)
    supernet = trainer.supernet
    assert isinstance(supernet, Supernet)
    before = supernet.thresholds.values.detach().clone()
    trainer.train()
    assert torch.equal(supernet.thresholds.values != before, supernet.known)
    architecture = Architecture.load(tmp_path / "run" / "architecture.json")
    assert architecture.norm_eps == 1e-3
    assert {s.activation for s in architecture.layers[3:5] if s.op != "skip"} == {"hard_swish"}
    macs = count_macs(build_classifier(architecture).eval(), (3, 32, 32)) / 1e6
    assert 0.9 * 0.27 <= macs <= 0.27
    model = create_model(
        tmp_path / "run" / "architecture.json",
        num_classes=2,
        checkpoint_path=tmp_path / "run" / "backbone.pth",
    )
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}
    metrics: dict[str, float] = {}
    for line in (tmp_path / "run" / "metrics.json").read_text().splitlines():
        metrics.update(json.loads(line))
    names = {key for key in metrics if key.startswith("decisions/")}
    assert len(names) == 2 * (3 + 3 + 3 + 1)
    assert {"decisions/layer02_kernel_5", "decisions/layer01_expansion_4"} < names


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
    options = (*METHODS["softmax"].overrides, "SEARCH.HELD_OUT", "0.5")
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
    weights, thresholds = (set(part.indices) for part in trainer.parts)
    assert not weights & thresholds
    assert len(weights | thresholds) == 16
    cfg.SEARCH.HELD_OUT = 0.01
    with pytest.raises(UserError, match=r"splits the 16 training images into 16 and 0"):
        SearchTrainer(cfg)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multi-path", "multi-path-gumbel", "evolution", "random-search"])
def test_every_formulation_ends_at_the_target(images: Path, tmp_path: Path, name: str) -> None:
    options = [
        *METHODS[name].overrides,
        *("SEARCH.HELD_OUT", "0.5", "SEARCH.WIDTH_MULT", "0.5", "SEARCH.CANDIDATES", "2"),
        *("SEARCH.EVOLUTION.POPULATION", "3", "SEARCH.EVOLUTION.GENERATIONS", "1"),
        *("SEARCH.EVOLUTION.CALIBRATION_BATCHES", "1"),
    ]
    run_search(make_cfg("search/digits.yaml", images, tmp_path, *options))
    architecture = Architecture.load(tmp_path / "architecture.json")
    assert 0.98 * 80 <= predict_runtime(architecture, LatencyTable.load("pixel1")) <= 80
    results = json.loads((tmp_path / "results.json").read_text())["search"]
    assert results["target_runtime"] == 80
    assert len(results["layers"]) == 20
    # a slimmed supernet has no weights for the network; a random search's candidate has
    assert (tmp_path / "backbone.pth").exists() == (name == "random-search")


def test_random_search_takes_the_best_on_held_out_images(images: Path, tmp_path: Path) -> None:
    options = ["SEARCH.FORMULATION", "random", "SEARCH.HELD_OUT", "0.5", "SEARCH.CANDIDATES", "2"]
    cfg = make_cfg("search/digits.yaml", images, tmp_path, *options)
    space = SearchSpace.load("imagenet")
    drawn = draw_candidates(cfg, space, build_runtime_model(cfg, space))
    for index, loss in enumerate((0.7, 0.3)):  # as if both had been trained
        folder = tmp_path / "candidates" / f"{index:02d}"
        folder.mkdir(parents=True)
        scores = {"classification": {"val": {"loss": loss}}}
        (folder / "results.json").write_text(json.dumps(scores))
        config = candidate_config(cfg, space, drawn[index], folder)
        (folder / "config.yaml").write_text(config.dump())
    best = tmp_path / "candidates" / "01"
    save_backbone(best, drawn[1], build_classifier(drawn[1], 2).state_dict())
    run_search(cfg)
    assert Architecture.load(tmp_path / "architecture.json") == drawn[1]
    assert drawn[0] != drawn[1]
    other = make_cfg("search/digits.yaml", images, tmp_path, *options, "SEED", "5")
    with pytest.raises(UserError, match="candidates/00' holds .*SEED is 0, not 5.*; name another"):
        run_search(other)


def test_candidates_cost_one_search(images: Path, tmp_path: Path) -> None:
    """Epochs × images × multiply-accumulates, counted by fvcore's table for whole networks."""
    cfg = make_cfg("search/digits.yaml", images, tmp_path, "SEARCH.FORMULATION", "random")
    space = SearchSpace.load("imagenet")
    size = (3, cfg.CLASSIFICATION.INPUT_SIZE, cfg.CLASSIFICATION.INPUT_SIZE)
    largest = count_macs(build_classifier(space.largest(), 1000).eval(), size)
    drawn = draw_candidates(cfg, space, build_runtime_model(cfg, space))
    total = sum(
        candidate_epochs(cfg, space, network)
        * (1 - cfg.SEARCH.HELD_OUT)
        * count_macs(build_classifier(network, 1000).eval(), size)
        for network in drawn
    )
    assert len(drawn) == cfg.SEARCH.CANDIDATES
    assert total == pytest.approx(cfg.CLASSIFICATION.EPOCHS * largest, rel=1e-6)


def test_a_search_on_some_of_the_classes(images: Path, tmp_path: Path) -> None:
    """The same classes in both splits, and a classifier of as many."""
    for split in ("train", "val"):
        source = images / split
        for name in ("blue", "red", "crimson"):
            original = source / name.replace("crimson", "red")
            shutil.copytree(original, tmp_path / "three" / split / name)
    options = ("CLASSIFICATION.NUM_CLASSES", "3", "SEARCH.PROXY_CLASSES", "2")
    cfg = make_cfg("search/digits.yaml", tmp_path / "three", tmp_path / "run", *options)
    parts = [build_dataset(cfg, split, augment=False) for split in ("train", "val")]
    assert parts[0].classes == parts[1].classes
    assert [len(part) for part in parts] == [16, 16]
    assert SearchTrainer(cfg).supernet.num_classes == 2
    cfg.SEARCH.PROXY_CLASSES = 4
    with pytest.raises(UserError, match="SEARCH.PROXY_CLASSES is 4; expected 2 to 3"):
        SearchTrainer(cfg)


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


def test_a_search_starts_from_a_whole_supernet(images: Path, tmp_path: Path) -> None:
    """A classifier has a part of the tensors, by the same names; of other classes is fine."""
    write_classifier(tmp_path / "two.pth", 2)
    trainer = SearchTrainer(make_cfg("search/digits.yaml", images, tmp_path, *SHORT))
    with pytest.raises(UserError, match=r"two.pth' belongs to another .* have another shape: lay"):
        trainer.resume_or_load(str(tmp_path / "two.pth"))
    state = Supernet(trainer.space, num_classes=5).state_dict()
    save_checkpoint(tmp_path / "five.pth", {"model": state})
    trainer.resume_or_load(str(tmp_path / "five.pth"))
    loaded = trainer.supernet.state_dict()
    assert torch.equal(loaded["stem.conv.weight"], state["stem.conv.weight"])
    assert loaded["classifier.weight"].shape == (2, 1280)


def test_search_decides_from_the_live_supernet(images: Path, tmp_path: Path) -> None:
    cfg = make_cfg("search/digits.yaml", images, tmp_path, "CLASSIFICATION.EMA_DECAY", "0.9")
    with pytest.raises(UserError, match="a search decides from the live supernet"):
        SearchTrainer(cfg)


@pytest.mark.parametrize("loss", [0.9, 0.2])  # guessing among two classes has 0.69
def test_a_search_that_has_not_learned_says_so(
    images: Path,
    tmp_path: Path,
    loss: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def losses(self: ClassificationTrainer, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss_ce": 0 * logits.sum() + loss}

    monkeypatch.setattr(ClassificationTrainer, "losses", losses)
    SearchTrainer(make_cfg("search/digits_small.yaml", images, tmp_path, *SHORT)).train()
    warned = f"cross entropy is {loss:.2f} at the end, and guessing has 0.69" in caplog.text
    assert warned == (loss > 0.69)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SEARCH.TARGET", "20.0", "SEARCH.TARGET is 20 ms; the networks .* take 30.63 to 131.5"),
        ("SEARCH.SPACE", "mars", "unknown search space 'mars'"),
        ("SEARCH.LATENCY_TABLE", "pixel9", "unknown latency table 'pixel9'"),
        ("SEARCH.RUNTIME_MODEL", "magic", "unknown SEARCH.RUNTIME_MODEL 'magic'"),
        ("SEARCH.BUDGET_END", "0.05", "expected 0 ≤ BUDGET_START < BUDGET_END"),
        ("SEARCH.FORMULATION", "magic", "unknown SEARCH.FORMULATION 'magic'; expected one of sig"),
        ("SEARCH.IMPORTANCE", "magic", "unknown importance 'magic'"),
        ("SOLVER.IMS_PER_BATCH", "0", "SOLVER.IMS_PER_BATCH is 0"),
        ("CLASSIFICATION.NUM_CLASSES", "5", "has 2 class folders"),
    ],
)
def test_wrong_keys(images: Path, tmp_path: Path, key: str, value: str, message: str) -> None:
    cfg = make_cfg("search/digits.yaml", images, tmp_path, key, value)
    with pytest.raises(UserError, match=message):
        SearchTrainer(cfg).train()
