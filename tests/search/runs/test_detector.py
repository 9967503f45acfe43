"""The supernet in a detector: it is the networks that it exports, and its loss searches them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.events import EventStorage

from backbones import Architecture, UserError, load_architecture
from backbones.latency import LatencyTable, predict_runtime
from backbones.weights import load_weights, save_checkpoint
from detection.modeling.backbone import build_spnas_backbone, build_trunk
from detection.trainer import DetectionTrainer
from search.config import load_search_config
from search.runs.detector import (
    DetectorSearchTrainer,
    detector_state,
    supernet_backbone,
)
from search.runs.detector_backbone import SupernetBackbone, build_supernet_backbone
from search.runs.run import run_search
from search.space import Candidate, SearchSpace
from search.supernets.single_path import Supernet
from tests.search.conftest import randomize, randomized_supernet
from tests.tiny_coco import TINY_MODEL

SHAPE = ShapeSpec(channels=3)


@pytest.fixture
def cfg(tiny_coco: Path, tmp_path: Path) -> CfgNode:
    """A search on the miniature, of two steps on one thread."""
    torch.set_num_threads(1)
    opts = [
        *(*TINY_MODEL, "DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "('tiny_val',)"),
        *("SOLVER.MAX_ITER", "2", "SEARCH.CALIBRATION_BATCHES", "1"),
        *("SEARCH.LATENCY_TABLE", "pixel1", "SEARCH.DEPLOY_SIZE", "[224, 224]"),
        *("SEARCH.TARGET", "80.0", "OUTPUT_DIR", str(tmp_path / "run")),
    ]
    return load_search_config("search/mask_rcnn_digits.yaml", opts)


def changed(cfg: CfgNode, *options: Any) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(options))
    return cfg


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_the_supernet_is_the_backbone_that_it_exports(
    cfg: CfgNode, space: SearchSpace, tmp_path: Path, rng: random.Random, norm: str
) -> None:
    cfg = changed(cfg, "MODEL.SPNAS.NORM", norm)
    backbone = build_supernet_backbone(cfg, SHAPE)
    torch.manual_seed(0)
    randomize(backbone)
    backbone.eval()
    images = torch.randn(1, 3, 64, 96)
    for _ in range(3):
        choices = space.sample(rng)
        space.architecture(choices, "drawn").save(tmp_path / "drawn.json")
        fixed = build_spnas_backbone(
            changed(cfg, "MODEL.SPNAS.ARCH", str(tmp_path / "drawn.json")), SHAPE
        )
        load_weights(fixed, detector_state(backbone, choices), "the supernet")
        with torch.no_grad(), backbone.supernet.using(choices):
            expected, found = fixed.eval()(images), backbone(images)
        assert expected.keys() == found.keys() == {"res2", "res3", "res4", "res5"}
        for name in expected:
            assert (found[name] - expected[name]).abs().max() < 1e-5 * expected[name].abs().max()
        assert {n: s.channels for n, s in fixed.output_shape().items()} == {
            n: s.channels for n, s in backbone.output_shape().items()
        }


def test_every_threshold_feels_the_detectors_loss(cfg: CfgNode) -> None:
    model = DetectionTrainer.build_model(cfg).train()
    batch = next(iter(DetectionTrainer.build_train_loader(cfg)))
    with EventStorage():
        losses = model(batch)
    torch.stack(list(losses.values())).sum().backward()
    for parameter in supernet_backbone(model).supernet.decision_parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).float().mean() > 0.5


@pytest.mark.slow
def test_a_search_ends_at_its_target_and_resumes(cfg: CfgNode, tmp_path: Path) -> None:
    cfg = changed(cfg, "SEARCH.FAMILY", "[60.0]", "SOLVER.CHECKPOINT_PERIOD", "1")
    run_search(cfg)
    folder = Path(cfg.OUTPUT_DIR)
    table = LatencyTable.load("pixel1")
    for part, target in (("", 80.0), ("family/60", 60.0)):
        found = Architecture.load(folder / part / "architecture.json")
        assert target * 0.99 <= predict_runtime(found, table) <= target
        assert found.provenance["dataset"] == "tiny_train"
    results = json.loads((folder / "results.json").read_text())
    assert results["search"]["target_runtime"] == 80.0
    assert len(results["search"]["family"]) == 1
    assert set(results["detection"]["scores"]["tiny_val"]) == {"bbox", "segm"}
    steps = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert {"loss_runtime", "loss_mask", "search/lambda"} <= set(steps[-2])
    assert "decisions/layer20_keep" in steps[-2]
    assert {"bbox/AP", "segm/AP"} <= set(steps[-1])

    (folder / "last_checkpoint").write_text("model_0000000.pth")
    before = (folder / "architecture.json").read_text()
    weights = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    run_search(cfg, resume=True)
    again = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert (folder / "architecture.json").read_text() == before


def test_the_backbone_found_starts_a_detector(cfg: CfgNode) -> None:
    """Its weights are those of the supernet, found by their names."""
    search = DetectorSearchTrainer(cfg)
    folder = Path(cfg.OUTPUT_DIR)
    architecture, detector, _ = search.exported(search.choices(80.0), folder)
    options = ("MODEL.BACKBONE.NAME", "build_spnas_fpn_backbone", "MODEL.SPNAS.LATENCY_TABLE", "")
    files = (
        *("MODEL.SPNAS.ARCH", str(folder / "architecture.json")),
        *("MODEL.WEIGHTS", str(folder / "backbone.pth"), "SOLVER.OPTIMIZER", "AdamW"),
    )
    trainer = DetectionTrainer(changed(cfg, *options, *files))
    trainer.resume_or_load(resume=False)
    state, expected = trainer.model.state_dict(), detector.state_dict()
    names = [name for name in expected if name.startswith("backbone.bottom_up.")]
    assert len(names) > 100
    assert all(torch.equal(state[name], expected[name]) for name in names)
    assert architecture.layers == Architecture.load(folder / "architecture.json").layers


def test_a_classification_supernet_warms_it_up(
    cfg: CfgNode, space: SearchSpace, tmp_path: Path
) -> None:
    supernet = randomized_supernet(space)
    with torch.no_grad():
        for parameter in supernet.thresholds.parameters():
            parameter.add_(100.0)  # everything is switched off
    save_checkpoint(tmp_path / "warm.pth", {"model": supernet.state_dict()})
    trainer = DetectorSearchTrainer(changed(cfg, "MODEL.WEIGHTS", str(tmp_path / "warm.pth")))
    trainer.resume_or_load(resume=False)
    kernel = supernet.superkernels[3].depthwise.conv.weight
    assert torch.equal(trainer.supernet.superkernels[3].depthwise.conv.weight, kernel)
    largest = Candidate(1, 1, 2)
    assert trainer.choices(0.0) == [largest] * 20  # undecided: everything is on
    assert all(torch.allclose(x, torch.full_like(x, 2.0)) for x in trainer.supernet.logits())


def test_weights_of_a_fixed_network_are_refused_with_a_way_out(
    cfg: CfgNode, tmp_path: Path
) -> None:
    state = build_trunk(load_architecture("spnas_100"), "BN").state_dict()
    save_checkpoint(tmp_path / "backbone.pth", {"model": state, "matching_heuristics": True})
    with pytest.raises(UserError, match=r"a search starts from the model_final.pth of a supernet"):
        run_search(changed(cfg, "MODEL.WEIGHTS", str(tmp_path / "backbone.pth")))


def test_thresholds_have_a_learning_rate_of_their_own(cfg: CfgNode, space: SearchSpace) -> None:
    optimizer = DetectorSearchTrainer(cfg).optimizer
    *_, last = optimizer.param_groups
    assert last["initial_lr"] == pytest.approx(cfg.SOLVER.BASE_LR * cfg.SEARCH.THRESHOLD_LR_MULT)
    assert last["weight_decay"] == 0
    kernel_expansion_se_and_skip = 1 + 1 + 2 + 1  # the last one is unused where none can be
    (thresholds,) = last["params"]
    assert thresholds.shape == (len(space.layers), kernel_expansion_se_and_skip)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("SEARCH.FORMULATION", "multi-path"), "'multi-path'; a search on a detector needs"),
        (("MODEL.SPNAS.NORM", "FrozenBN"), "MODEL.SPNAS.NORM is 'FrozenBN'"),
        (("MODEL.BACKBONE.FREEZE_AT", "2"), "MODEL.BACKBONE.FREEZE_AT is 2"),
        (("SEARCH.TARGET", "20.0"), "take 30.63 to 131.5 ms"),
        (("SEARCH.FAMILY", "[500.0]"), "SEARCH.FAMILY is 500"),
        (("SEARCH.DEPLOY_SIZE", "[320, 320]"), "SEARCH.DEPLOY_SIZE is 320×320"),
    ],
)
def test_mistakes(cfg: CfgNode, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_search(changed(cfg, *options))


def test_a_supernet_without_its_last_map(cfg: CfgNode, space: SearchSpace) -> None:
    with pytest.raises(UserError, match="needs 'res5'"):
        SupernetBackbone(Supernet(space, 0), ["res2", "res3"])
    with pytest.raises(UserError, match="spnas train --eval-only"):
        run_search(cfg, eval_only=True)
