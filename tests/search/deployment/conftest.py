"""What runs leave, in small: a classifier's folder, and a detector's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from backbones.exported import save_backbone
from backbones.weights import save_checkpoint
from search.config import load_search_config
from tests.backbones.deployment.small import small_architecture, small_classifier
from tests.search.conftest import make_cfg

DETECTOR = "detection/mask_rcnn_spnas_fpn_1x.yaml"


@pytest.fixture(scope="session")
def classifier_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Architecture, weights of two classes, and configuration; the images have two colours."""
    folder = tmp_path_factory.mktemp("classifier")
    network = small_classifier(plain=True, classes=2)
    save_backbone(folder, small_architecture(plain=True), network.state_dict())
    cfg = make_cfg("classification/digits.yaml", images, folder)
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


@pytest.fixture(scope="session")
def detector_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and configuration of a Mask R-CNN."""
    folder = tmp_path_factory.mktemp("detector")
    small_architecture().save(folder / "small.json")
    options = ("MODEL.SPNAS.ARCH", str(folder / "small.json"), "MODEL.DEVICE", "cpu")
    more = ("MODEL.FPN.OUT_CHANNELS", "16", "INPUT.MIN_SIZE_TEST", "60", "INPUT.FORMAT", "BGR")
    cfg = load_search_config(DETECTOR, [*options, *more])
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, value in model.backbone.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
    save_checkpoint(folder / "model_final.pth", {"model": model.state_dict(), "iteration": 3})
    return folder
