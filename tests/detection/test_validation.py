"""Losses on the test sets, the best model and early stopping of a detector."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage

from backbones import UserError
from detection.data.checks import load_records
from detection.data.mapper import CheckedDatasetMapper
from detection.engine.metrics import read_metrics
from detection.engine.random_state import capture_random_state
from detection.engine.results import results_part
from detection.recipe import best_metric, check_evaluations, check_search
from detection.trainer import DetectionTrainer
from detection.validation import validation_losses
from search.studies.kills.differences import first_difference

TrainNet = Callable[..., tuple[int, str]]
SHORT = ("SOLVER.MAX_ITER", "4", "TEST.EVAL_PERIOD", "2", "SOLVER.CHECKPOINT_PERIOD", "2")


def model_of(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def test_losses_are_those_of_the_model(tiny_cfg: CfgNode) -> None:
    """RetinaNet samples nothing: its losses follow from model and images alone."""
    tiny_cfg.merge_from_list(
        [
            *("MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.RETINANET.NUM_CLASSES", 3),
            *("MODEL.BACKBONE.NAME", "build_retinanet_spnas_fpn_backbone"),
            *("MODEL.MASK_ON", False, "MODEL.RETINANET.NORM", ""),
            *("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]),
            *("MODEL.SPNAS.OUT_FEATURES", ["res3", "res4", "res5"]),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32], [64], [128], [256]]),
        ]
    )
    torch.manual_seed(0)
    model = DetectionTrainer.build_model(tiny_cfg)
    expected: dict[str, list[float]] = {}
    own = copy.deepcopy(model).train()
    for module in own.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    mapper = CheckedDatasetMapper(
        is_train=True, augmentations=[T.ResizeShortestEdge(64, 96)], image_format="BGR"
    )
    with torch.no_grad(), EventStorage():
        for record in load_records("tiny_val"):
            for name, loss in own([mapper(record)]).items():
                expected.setdefault(name, []).append(float(loss))
    found = validation_losses(tiny_cfg, model)
    means = {f"validation_{k}": sum(v) / len(v) for k, v in expected.items()}
    assert set(means) == {"validation_loss_cls", "validation_loss_box_reg"}
    assert found.pop("validation_loss") == pytest.approx(sum(means.values()))
    assert found == pytest.approx(means)


def test_the_model_and_the_random_numbers_do_not_notice(tiny_cfg: CfgNode) -> None:
    torch.manual_seed(0)
    model = DetectionTrainer.build_model(tiny_cfg).train()
    before, random = copy.deepcopy(model.state_dict()), capture_random_state()
    first = validation_losses(tiny_cfg, model)
    torch.rand(5)
    assert validation_losses(tiny_cfg, model) == first
    assert {"validation_loss", "validation_loss_mask", "validation_loss_rpn_cls"} <= set(first)
    torch.set_rng_state(random["torch"])
    assert first_difference(capture_random_state(), random) is None
    assert first_difference(dict(model.state_dict()), dict(before)) is None
    assert model.training and all(p.grad is None for p in model.parameters())


def test_a_training_with_and_without_it(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    tiny_cfg.merge_from_list([*SHORT, "SOLVER.STEPS", "()", "SOLVER.BASE_LR", "0.01"])
    for name in ("with", "without"):
        tiny_cfg.OUTPUT_DIR = str(tmp_path / name)
        if name == "with":
            tiny_cfg.TEST.VALIDATION_LOSS = True
            tiny_cfg.SOLVER.BEST_METRIC = "validation_loss"
        else:
            tiny_cfg.TEST.VALIDATION_LOSS, tiny_cfg.SOLVER.BEST_METRIC = False, ""
            tiny_cfg.TEST.EVAL_PERIOD = 0
        seed_all_rng(3)
        trainer = DetectionTrainer(tiny_cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
    final = [model_of(tmp_path / name / "model_final.pth") for name in ("with", "without")]
    assert first_difference(final[0]["model"], final[1]["model"]) is None
    for part in ("_trainer", "random_states"):  # with the optimizer in the first
        assert first_difference(*(state["trainer"][part] for state in final)) is None, part
    rows = {
        row["iteration"]: row["validation_loss"]
        for row in read_metrics(tmp_path / "with")
        if "validation_loss" in row
    }
    assert set(rows) == {1, 4}
    best = results_part(tmp_path / "with", "best")
    iteration = min(rows, key=lambda at: rows[at])
    assert best["iteration"] == {1: 2, 4: 4}[iteration]
    assert best["value"] == pytest.approx(min(rows.values()))
    kept = model_of(tmp_path / "with" / "model_best.pth")["model"]
    checkpoint = {2: "model_0000001.pth", 4: "model_final.pth"}[best["iteration"]]
    assert first_difference(kept, model_of(tmp_path / "with" / checkpoint)["model"]) is None


def test_from_the_command_line(train_net: TrainNet, tmp_path: Path) -> None:
    """Nothing learned in a few steps: AP stays where it is, and the run ends."""
    run = tmp_path / "run"
    options = (
        *("SOLVER.MAX_ITER", "20", "TEST.EVAL_PERIOD", "2", "SOLVER.BASE_LR", "1e-9"),
        *("SOLVER.BEST_METRIC", "segm/AP", "SOLVER.EARLY_STOPPING.PATIENCE", "1"),
    )
    code, output = train_net(*options)
    assert code == 0, output
    assert "segm/AP has not become better in 1 evaluations (best " in output
    assert "the training ends after iteration 4 of 20" in output
    assert f"after iteration 2 of 4, in '{run}/model_best.pth'" in output
    assert "tiny_val |    mask |" in output
    found = results_part(run, "detection")["scores"]["tiny_val"]["segm"]["AP"]
    assert results_part(run, "best")["value"] >= found

    code, output = train_net("--resume", *options)
    assert code == 0, output
    assert "All 4 iterations are done: nothing to train" in output

    weights = ("MODEL.WEIGHTS", str(run / "model_best.pth"), "OUTPUT_DIR", str(tmp_path / "eval"))
    code, output = train_net("--eval-only", *weights)
    assert code == 0, output
    again = results_part(tmp_path / "eval" / "evaluation", "detection")
    value = results_part(run, "best")["value"]
    assert again["scores"]["tiny_val"]["segm"]["AP"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("TEST.EVAL_PERIOD", -1), "TEST.EVAL_PERIOD is -1; expected iterations"),
        (("SOLVER.BEST_METRIC", "bbox/AP", "TEST.EVAL_PERIOD", 0), "nothing is evaluated before"),
        (("SOLVER.BEST_METRIC", "bbox/AP", "TEST.EVAL_PERIOD", 9), "nothing is evaluated before"),
        (("SOLVER.EARLY_STOPPING.PATIENCE", 2), "but SOLVER.BEST_METRIC is empty"),
        (
            ("SOLVER.BEST_METRIC", "segm/AP", "MODEL.MASK_ON", False),
            "expected one of bbox/AP, with",
        ),
        (("SOLVER.BEST_METRIC", "bbox/mAP"), "'bbox/mAP', which this detector is not evaluated"),
        (("SOLVER.BEST_METRIC", "AP"), "'AP', which this detector is not evaluated for"),
        (("SOLVER.BEST_METRIC", "validation_loss"), "but TEST.VALIDATION_LOSS is False"),
        (("SOLVER.BEST_METRIC", "bbox/AP", "DATASETS.TEST", ()), "but DATASETS.TEST is empty"),
        (("TEST.VALIDATION_LOSS", True, "DATASETS.TEST", ()), "but DATASETS.TEST is empty"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tiny_cfg: CfgNode, options: tuple[Any, ...], message: str
) -> None:
    tiny_cfg.merge_from_list(["SOLVER.MAX_ITER", 9, "TEST.EVAL_PERIOD", 3, *options])
    with pytest.raises(UserError, match=message):
        check_evaluations(tiny_cfg)


def test_what_makes_sense_is_not(tiny_cfg: CfgNode) -> None:
    tiny_cfg.merge_from_list(["SOLVER.MAX_ITER", 9, "TEST.EVAL_PERIOD", 3])
    tiny_cfg.TEST.VALIDATION_LOSS = True
    for metric in ("", "bbox/APs", "segm/AP50", "bbox/AP-disc", "validation_loss_mask"):
        tiny_cfg.SOLVER.BEST_METRIC = metric
        check_evaluations(tiny_cfg)
        assert best_metric(tiny_cfg) == metric
    tiny_cfg.DATASETS.TEST = ("tiny_val", "tiny_train")
    assert best_metric(tiny_cfg) == "validation_loss_mask"
    tiny_cfg.SOLVER.BEST_METRIC = "bbox/AP"
    assert best_metric(tiny_cfg) == "tiny_val/bbox/AP"
    tiny_cfg.SOLVER.BEST_METRIC = "tiny_train/bbox/AP"
    assert best_metric(tiny_cfg) == "tiny_train/bbox/AP"
    check_evaluations(tiny_cfg)


def test_a_search_has_no_best(tiny_cfg: CfgNode) -> None:
    check_search(tiny_cfg)
    tiny_cfg.SOLVER.BEST_METRIC = "bbox/AP"
    with pytest.raises(UserError, match="SOLVER.BEST_METRIC is 'bbox/AP', which is for the train"):
        check_search(tiny_cfg)
