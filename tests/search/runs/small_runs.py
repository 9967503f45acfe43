"""Every kind of training as a run of four steps in which nothing depends on who computes what.

Norms keep their first statistics, dropout is off, and a detector takes every anchor and every
proposal, as many for each image: then the losses of a batch are means over its images.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from detectron2.data.datasets import register_coco_instances
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.architecture import HeadSpec, LayerSpec, StemSpec
from backbones.exported import save_backbone
from backbones.files import write_json
from backbones.network import build_classifier
from detection.engine.checkpoint import Checkpointer
from detection.trainer import DetectionTrainer
from search.classification.classifier import ClassifierTrainer
from search.config import load_search_config
from search.runs.formulations.registry import FORMULATIONS
from search.runs.run import run_search
from search.space import Candidate, Choice, SearchSpace, Stage
from tests.search.conftest import SHORT, make_cfg
from tests.tiny_coco import TINY_MODEL, write_dataset

STEPS, HALF = 4, 2
BATCH = 8
OWN: list[Choice] = [Candidate(1, 1, 0), Candidate(1, 1, 0), Candidate(0, 1, 0)]
"""The network of the small space that measured searches start from."""

_IMAGES = (
    *("SOLVER.IMS_PER_BATCH", str(BATCH), "SOLVER.OPTIMIZER", "rmsproptf"),
    *("SOLVER.OPTIMIZER_EPS", "0.001", "SOLVER.BASE_LR", "0.02", "SEED", "1", *SHORT),
    *("SOLVER.MAX_TO_KEEP", "99"),  # of a candidate of "random", one a step
    # 16 images
    *("CLASSIFICATION.EPOCHS", str(STEPS * BATCH / 16), "CLASSIFICATION.DROP_RATE", "0.0"),
    *("CLASSIFICATION.CHECKPOINT_EPOCHS", str(HALF * BATCH / 16)),
)
_SEARCH = (
    *("SEARCH.HELD_OUT", "0.5", "SEARCH.CALIBRATION_BATCHES", "1", "SEARCH.CANDIDATES", "1"),
    *("SEARCH.EVOLUTION.POPULATION", "2", "SEARCH.EVOLUTION.GENERATIONS", "1"),
    *("SEARCH.EVOLUTION.CALIBRATION_BATCHES", "1", "SEARCH.SUBSET_DROPOUT", "0.5"),
    *("SEARCH.SENSITIVITY.ROUNDS", "1", "SEARCH.SENSITIVITY.IMAGES", "4", "SEARCH.BUDGET_START"),
    *("0.0", "SEARCH.SENSITIVITY.CALIBRATION_BATCHES", "1", "SEARCH.MEASURE", "False"),
)
_NETWORK = ("MODEL.SPNAS.ARCH", "mnasnet_b1", "MODEL.SPNAS.WIDTH_MULT", "0.25")
_SCENES = (
    *(*TINY_MODEL, "DATASETS.TRAIN", "('same_train',)", "DATASETS.TEST", "('same_val',)"),
    *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", str(STEPS), "SOLVER.STEPS", "()"),
    *("SOLVER.CHECKPOINT_PERIOD", str(HALF), "SOLVER.WARMUP_ITERS", "0"),
    # every anchor, and of every image 20 proposals and three objects, of which only these are found
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", "8000", "MODEL.RPN.NMS_THRESH", "1.0"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "64", "MODEL.ROI_HEADS.POSITIVE_FRACTION", "0.5"),
    *("MODEL.ROI_HEADS.IOU_THRESHOLDS", "[0.999]", "VIS_PERIOD", "0", "TEST.NUM_VISUALIZATIONS"),
    *("0", "SOLVER.BASE_LR", "0.002"),
)
_DETECTORS = {
    "detector": ("detection/mask_rcnn_spnas_fpn_digits.yaml", *_NETWORK),
    "detector search": ("search/mask_rcnn_digits.yaml", "SEARCH.FORMULATION", "sigmoid"),
    "detector taylor": ("search/mask_rcnn_digits.yaml", "SEARCH.FORMULATION", "taylor"),
}

SPACE = SearchSpace(
    "small",
    StemSpec(8),
    (LayerSpec(8, op="ds"), LayerSpec(12, stride=2), LayerSpec(16, stride=2)),
    (Stage(24, 2, 2),),
    (LayerSpec(32, op="ds", stride=2),),
    HeadSpec(48),
    kernel_sizes=(3, 5),
    expansions=(3, 6),
)
"""Of the searches on detectors: it has all maps that a pyramid takes."""

TARGET = "0.8"
"""Millions of multiply-accumulates; networks take 0.66 to 0.95."""

RUNS = (*FORMULATIONS, "classifier", *_DETECTORS)
"""By formulation, or what it is."""


def write_data(base: Path) -> None:
    """The scenes, with three objects on each, the space, and the network to start from."""
    path = write_dataset(base / "scenes")
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
    path.write_text(json.dumps(content))
    write_json(base / "space.json", SPACE.to_dict())
    architecture = SearchSpace.load("digits_small").architecture(OWN, "own")
    torch.manual_seed(1)
    save_backbone(base / "start", architecture, build_classifier(architecture, 2).state_dict())


def register(base: Path) -> None:
    """The scenes, by the names that the runs use."""
    scenes = base / "scenes"
    for name in ("same_train", "same_val"):
        register_coco_instances(name, {}, str(scenes / "annotations.json"), str(scenes))


def run_of(name: str, images: Path, base: Path, folder: Path, resume: bool, *more: str) -> None:
    """Trains to the end, as the tools do.

    Args:
        name: one of ``RUNS``.
        images: to classify.
        base: what :func:`write_data` wrote.
        folder: of the run.
        resume: as ``--resume``.
        more: keys and values.
    """
    seed_all_rng(1 + comm.get_rank())
    if name == "classifier":
        options = (*_IMAGES, *_NETWORK, "CLASSIFICATION.EMA_DECAY", "0.5", *more)
        classifier = ClassifierTrainer(
            make_cfg("classification/digits.yaml", images, folder, *options)
        )
        classifier.resume_or_load(resume=resume)
        classifier.train()
    elif name == "detector":
        detector = DetectionTrainer(_detector_cfg(name, base, folder, *more))
        detector.resume_or_load(resume=resume)
        detector.train()
    elif name in _DETECTORS:
        run_search(_detector_cfg(name, base, folder, *more), resume)
    else:
        start = ("SEARCH.START", str(base / "start")) if name in ("sensitivity", "taylor") else ()
        options = ("SEARCH.FORMULATION", name, *_IMAGES, *_SEARCH, *start, *more)
        run_search(make_cfg("search/digits_small.yaml", images, folder, *options), resume)


def _detector_cfg(name: str, base: Path, folder: Path, *more: str) -> Any:
    config, *own = _DETECTORS[name]
    if name != "detector":
        space = ("SEARCH.SPACE", str(base / "space.json"), "SEARCH.TARGET", TARGET)
        table = ("SEARCH.LATENCY_TABLE", "macs", "SEARCH.DEPLOY_SIZE", "[64, 64]")
        own += [*_SEARCH, *space, *table]
    return load_search_config(config, [*_SCENES, *own, "OUTPUT_DIR", str(folder), *more])


@contextmanager
def fixed_statistics() -> Iterator[None]:
    """Norms normalise by their running statistics in training, too, and leave them as they are."""

    def train(module: nn.Module, mode: bool = True) -> nn.Module:
        return nn.Module.train(module, False)

    with mock.patch.object(_BatchNorm, "train", train):
        yield


@contextmanager
def copied_halfway(folder: Path, copy: Path) -> Iterator[None]:
    """Copies the folder of a run, which is in the block, behind the checkpoint in its middle."""
    save = Checkpointer.save

    def saved(self: Checkpointer, name: str, **rest: Any) -> None:
        save(self, name, **rest)
        if name == f"model_{HALF - 1:07d}" and not copy.exists():
            shutil.copytree(folder, copy)

    with mock.patch.object(Checkpointer, "save", saved):
        yield
