"""Detectors whose answers do not depend on a trained network: their scores are spread widely."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from torch import nn

from detection.trainer import DetectionTrainer

MakeDetector = Callable[..., tuple[CfgNode, nn.Module]]


@pytest.fixture
def make_detector(tiny_cfg: CfgNode) -> MakeDetector:
    """``make_detector(*options)`` → configuration and a small detector with random weights."""

    def make(*options: str) -> tuple[CfgNode, nn.Module]:
        cfg = tiny_cfg.clone()
        cfg.merge_from_list(["MODEL.SPNAS.WIDTH_MULT", "0.35", *options])
        torch.manual_seed(0)
        model = DetectionTrainer.build_model(cfg).eval()
        for name, parameter in model.named_parameters():
            # what says how likely classes are and where boxes are, which begins close to nothing
            if name.endswith(("cls_score.weight", "objectness_logits.weight", "bbox_pred.weight")):
                nn.init.normal_(parameter, std=0.3)
            elif name.endswith(("anchor_deltas.weight", "predictor.weight")):
                nn.init.normal_(parameter, std=0.1)
            elif name.endswith("cls_score.bias"):
                nn.init.zeros_(parameter)
        return cfg, model

    return make


@pytest.fixture
def image() -> np.ndarray:
    """(96, 72, 3) uint8 with blobs of colour."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)
