"""Searches on a detector's losses that start from a backbone, or from a detector."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from backbones import Architecture, UserError
from backbones.exported import save_backbone
from backbones.latency import predict_runtime
from backbones.weights import load_weights, read_checkpoint, save_checkpoint
from detection.engine.random_state import seeded
from detection.trainer import DetectionTrainer
from search.config import load_search_config
from search.runs.build import build_latency_table, build_runtime_model
from search.runs.detector import DetectorSearchTrainer, calibrate_detector
from search.runs.detector_backbone import backbone_in
from search.runs.run import run_search
from search.space import Candidate
from search.start.refitting import changed_layers, fit_layers, layer_rows
from search.start.seed import seed_of
from tests.search.start.conftest import random_network, tiny_network
from tests.tiny_coco import TINY_MODEL


@pytest.fixture
def start(tmp_path: Path) -> Path:
    folder = tmp_path / "start"
    folder.mkdir()
    save_backbone(folder, tiny_network(), random_network(tiny_network()).state_dict())
    return folder


@pytest.fixture
def cfg(tiny_coco: Path, tmp_path: Path, start: Path) -> CfgNode:
    """A search around a tiny network on the miniature, of two steps, to 0.8 of its MACs."""
    torch.set_num_threads(1)
    opts = [
        *(*TINY_MODEL, "DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "()"),
        *("SOLVER.MAX_ITER", "2", "SEARCH.CALIBRATION_BATCHES", "1"),
        *("SEARCH.LATENCY_TABLE", "macs", "SEARCH.DEPLOY_SIZE", "[64, 64]"),
        *("SEARCH.SPACE", "around", "SEARCH.START", str(start), "SEARCH.TOLERANCE", "0.2"),
        *("SEARCH.FORMULATION", "sensitivity", "SEARCH.SENSITIVITY.IMAGES", "2"),
        *("SEARCH.SENSITIVITY.CALIBRATION_BATCHES", "1", "SEARCH.SENSITIVITY.ROUNDS", "1"),
        *("OUTPUT_DIR", str(tmp_path / "run")),
    ]
    cfg = load_search_config("search/mask_rcnn_digits.yaml", opts)
    seed = seed_of(cfg)
    assert seed is not None
    full = build_runtime_model(cfg, seed.space).runtime_of(seed.choices)
    return changed(cfg, "SEARCH.TARGET", str(0.8 * full))


def changed(cfg: CfgNode, *options: str) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(options))
    return cfg


def started(cfg: CfgNode) -> DetectorSearchTrainer:
    trainer = DetectorSearchTrainer(cfg)
    trainer.resume_or_load(resume=False)
    return trainer


def losses(detector: nn.Module, cfg: CfgNode) -> dict[str, Tensor]:
    """Of one batch, by the statistics that the detector has."""
    detector.train()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with seeded(3), EventStorage(), torch.no_grad():
        batch = next(iter(DetectionTrainer.build_train_loader(cfg)))
        found: dict[str, Tensor] = detector(batch)
    return found


@pytest.mark.parametrize("formulation", ["sensitivity", "taylor"])
def test_a_search_from_a_backbone_ends_at_its_target(cfg: CfgNode, formulation: str) -> None:
    cfg = changed(cfg, "SEARCH.FORMULATION", formulation)
    run_search(cfg)
    folder = Path(cfg.OUTPUT_DIR)
    found = Architecture.load(folder / "architecture.json")
    seed = seed_of(cfg)
    assert seed is not None
    runtime = predict_runtime(found, build_latency_table(cfg, seed.space))
    assert 0.8 * cfg.SEARCH.TARGET <= runtime <= cfg.SEARCH.TARGET
    assert found.provenance["method"] == formulation
    assert (folder / "sensitivity.json").exists() == (formulation == "sensitivity")
    names = [str(seed.space.choice_type(choice)) for choice in seed.choices]
    assert json.loads((folder / "results.json").read_text())["search"]["start"][0]["layers"] == (
        names
    )
    assert {path.name for path in folder.glob("*.pth")} >= {"backbone.pth", "detector.pth"}


def test_it_starts_as_the_backbone(cfg: CfgNode) -> None:
    trainer = started(cfg)
    network = random_network(tiny_network())
    images = torch.randn(1, 3, 64, 64)
    trainer.supernet.eval()
    assert trainer.supernet.choices() == list(trainer.reference)
    with torch.no_grad(), trainer.supernet.using(trainer.reference):
        found = trainer.supernet.forward_intermediates(images)
        expected = network.forward_intermediates(images)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_what_is_exported_is_a_detector(cfg: CfgNode, tmp_path: Path) -> None:
    """detector.pth fits the fixed detector, which then has the losses of the one exported."""
    trainer = started(cfg)
    choices = [Candidate(0, 0, 0), None, *list(trainer.reference)[2:]]
    _, detector, fixed_cfg = trainer.exported(choices, tmp_path / "out")
    again = DetectionTrainer.build_model(fixed_cfg)
    state = read_checkpoint(tmp_path / "out" / "detector.pth")["model"]
    load_weights(again, state, "detector.pth")
    expected, found = losses(detector, fixed_cfg), losses(again, fixed_cfg)
    assert expected.keys() == found.keys() >= {"loss_mask", "loss_cls", "loss_rpn_cls"}
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_from_a_detector_with_pyramid_and_heads(
    cfg: CfgNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = started(cfg)
    first.exported(first.reference, tmp_path / "out")
    file = tmp_path / "out" / "detector.pth"
    state = read_checkpoint(file)["model"]
    again = started(changed(cfg, "MODEL.WEIGHTS", str(file), "SEED", "9"))
    own = again.detector.state_dict()
    heads = [name for name in state if not name.startswith("backbone.bottom_up.")]
    assert len(heads) > 20
    assert all(torch.equal(own[name], state[name]) for name in heads)
    assert "start afresh" not in caplog.text
    fresh = started(changed(cfg, "SEED", "9")).detector.state_dict()
    assert not all(torch.equal(fresh[name], state[name]) for name in heads)

    name = "roi_heads.box_predictor.cls_score.weight"
    state[name] = torch.zeros(8, state[name].shape[1])  # of seven classes
    save_checkpoint(tmp_path / "other.pth", {"model": state})
    other = started(changed(cfg, "MODEL.WEIGHTS", str(tmp_path / "other.pth")))
    other_state = other.detector.state_dict()
    assert "has none that fit" in caplog.text and "start afresh" in caplog.text
    rest = [key for key in heads if key != name]
    assert all(torch.equal(other_state[key], state[key]) for key in rest)
    assert other_state[name].std() > 0


def test_the_loss_of_a_network(cfg: CfgNode) -> None:
    """That of the fixed detector, with statistics of the same batches, on the same images."""
    trainer = started(cfg)
    judge = trainer.judge
    choices = list(trainer.reference)
    choices[1] = None
    found = judge.loss(choices)
    assert found == judge.loss(choices)
    assert judge.fitness(choices) == -found
    assert judge.loss(trainer.reference) != found
    assert judge.blind_loss(choices) != found
    shown = [image["file_name"] for batch in judge._images for image in batch]
    assert len(shown) == 2


def test_networks_are_judged_on_the_same_proposals(cfg: CfgNode) -> None:
    """What computes the same has the same loss, though proposals are drawn at random."""
    trainer = started(cfg)
    judge, reference = trainer.judge, list(trainer.reference)
    # kernels grow by a ring of zeros, and shrink by one of weights
    grown = [c and replace(c, kernel=1) for c in reference]
    other = [c and replace(c, kernel=0) for c in reference]
    assert len({tuple(reference), tuple(grown), tuple(other)}) == 3
    expected = judge.loss(reference)
    assert judge.loss(grown) == pytest.approx(expected, rel=1e-5)
    assert judge.loss(other) != pytest.approx(expected, rel=1e-5)
    heads = trainer.detector.roi_heads
    assert heads.label_and_sample_proposals.__func__ is type(heads).label_and_sample_proposals


def test_a_detector_is_judged_and_exported_with_fitted_layers(cfg: CfgNode, tmp_path: Path) -> None:
    cfg = changed(cfg, "SEARCH.SENSITIVITY.CALIBRATION_BATCHES", "2")
    trainers = []
    for count in ("0", "2"):
        torch.manual_seed(0)  # of the heads
        trainers.append(started(changed(cfg, "SEARCH.REFIT_BATCHES", count)))
    own = list(trainers[0].reference)
    halved = [own[0], Candidate(1, 0, 0), *own[2:]]
    behind = [f"layers.{index}.project.conv.weight" for index in range(2, 7)]
    for choices, moved in ((own, []), (halved, behind)):
        plain, fitted = (trainer.judge.loss(choices) for trainer in trainers)
        assert (plain != fitted) == bool(moved)
        states = [
            backbone_in(trainer.exported(choices, tmp_path / "out")[1]).state_dict()
            for trainer in trainers
        ]
        weights = [key for key in states[0] if key.endswith("conv.weight")]
        assert [key for key in weights if not torch.equal(*(s[key] for s in states))] == moved


def test_fitted_layers_stay_as_in_the_network_held(cfg: CfgNode) -> None:
    """Independent: the layer fitted behind the other change, moved by hand."""
    cfg = changed(cfg, "SEARCH.SENSITIVITY.CALIBRATION_BATCHES", "2")
    judges = []
    for count in ("0", "2"):
        torch.manual_seed(0)  # of the heads
        judges.append(started(changed(cfg, "SEARCH.REFIT_BATCHES", count)).judge)
    plain, fitting = judges
    own = list(plain._reference)
    around = [own[0], Candidate(1, 0, 0), Candidate(1, 0, 0), *own[3:]]
    other = [*own[:2], *around[2:]]
    plain.loss(own)  # draws the proposals
    start, held, network = (plain._cut_out(choices) for choices in (own, around, other))
    pixels = fitting._pixels
    indices = changed_layers(held.architecture, start.architecture)
    fit_layers(held, pixels, layer_rows(start, pixels), indices)
    assert len(indices) == 2
    network.layers[indices[1]] = held.layers[indices[1]]
    plain._cut_out = lambda choices: network
    expected = plain.loss(other)
    alone = fitting.loss(other)
    fitting.hold(around, 0)
    assert fitting.loss(other) == pytest.approx(expected, rel=1e-5)
    assert alone != pytest.approx(expected, rel=1e-5)
    before = fitting._fitted
    fitting.hold(around, 1)
    assert fitting._fitted is before


def test_judging_leaves_the_detector_as_it_was(cfg: CfgNode) -> None:
    trainer = started(cfg)
    for mode in (True, False):
        trainer.detector.train(mode)
        state = {k: v.clone() for k, v in trainer.detector.state_dict().items()}
        trainer.judge.loss(trainer.reference)
        gradients = trainer.judge.gate_gradients(trainer.reference)
        assert gradients.shape == trainer.supernet.thresholds.values.shape
        assert float(gradients.sum()) > 0
        assert all(torch.equal(v, state[k]) for k, v in trainer.detector.state_dict().items())
        assert {m.training for m in trainer.detector.modules()} == {mode}
        assert trainer.supernet.training == mode
        assert all(p.grad is None for p in trainer.detector.parameters())


def test_calibrated_statistics_are_in_the_file(cfg: CfgNode, tmp_path: Path) -> None:
    trainer = started(cfg)
    _, detector, fixed_cfg = trainer.exported(trainer.reference, tmp_path / "out")
    calibrate_detector(detector, fixed_cfg, 1)
    state = read_checkpoint(tmp_path / "out" / "detector.pth")["model"]
    name = "backbone.bottom_up.layers.1.depthwise.norm.running_mean"
    torch.testing.assert_close(state[name], detector.state_dict()[name])


def test_norms_without_statistics_are_refused(cfg: CfgNode) -> None:
    with pytest.raises(UserError, match=r"batch norms fit no .*; set MODEL.SPNAS.NORM BN") as error:
        started(changed(cfg, "MODEL.SPNAS.NORM", "GN"))
    assert "\n" not in str(error.value)
