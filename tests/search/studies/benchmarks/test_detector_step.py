"""Steps of detectors: what is trained moves, what is detected has masks, and R50-FPN is theirs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode

from backbones.errors import UserError
from search.studies.benchmarks import detector_step
from search.studies.benchmarks.detector_step import (
    DETECTORS,
    KINDS,
    OBJECTS,
    build_detector,
    detector_config,
    detector_step_report,
    detector_step_section,
    made_up_batch,
    make_inference_step,
    make_training_step,
)
from tests.tiny_coco import BASE, TINY_MODEL, own_config

SIZE = (64, 96)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    """In place of both detectors."""
    cfg = own_config(*TINY_MODEL, file=str(BASE))
    monkeypatch.setattr(detector_step, "detector_config", lambda *_: cfg.clone())
    return cfg


def test_the_other_detector_is_detectron2s() -> None:
    """As its zoo configures it, but for the weights."""
    ours, theirs = (detector_config(name, "cpu") for name in DETECTORS)
    assert ours.MODEL.SPNAS.ARCH == "spnas_100"
    assert ours.MODEL.BACKBONE.NAME == "build_spnas_fpn_backbone"
    expected = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    for part in ("BACKBONE", "RESNETS", "FPN", "RPN", "ROI_HEADS", "ROI_BOX_HEAD", "ROI_MASK_HEAD"):
        found = {key: theirs.MODEL[part][key] for key in expected.MODEL[part]}
        assert found == expected.MODEL[part], part
    assert theirs.MODEL.MASK_ON and ours.MODEL.MASK_ON
    assert theirs.MODEL.WEIGHTS == ours.MODEL.WEIGHTS == ""


def test_made_up_objects_are_where_their_masks_are(small: CfgNode) -> None:
    first, second = made_up_batch(small, 2, *SIZE)
    assert first["image"].shape == (3, *SIZE)
    assert first["image"].dtype == torch.uint8
    assert not torch.equal(first["image"], second["image"])
    found = first["instances"]
    assert len(found) == OBJECTS
    masks, boxes = found.gt_masks.tensor, found.gt_boxes.tensor
    for mask, (left, top, right, bottom) in zip(masks, boxes.tolist(), strict=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        assert left - 1 <= columns.min() and columns.max() <= right + 1
        assert top - 1 <= rows.min() and rows.max() <= bottom + 1
        # an ellipse fills π/4 of its box
        assert float(mask.sum()) == pytest.approx(
            math.pi / 4 * (right - left) * (bottom - top), rel=0.2, abs=8
        )


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The detectors that are built."""
    found: list[Any] = []

    def build(cfg: CfgNode) -> Any:
        found.append(build_detector(cfg))
        return found[-1]

    monkeypatch.setattr(detector_step, "build_detector", build)
    return found


@pytest.mark.usefixtures("small")
def test_a_training_step_has_a_gradient_of_every_weight(built: list[Any]) -> None:
    """And leaves the weights as they are: every step has the same work."""
    step = make_training_step("any", "cpu", 2, SIZE, "float32")
    before = {name: p.detach().clone() for name, p in built[0].named_parameters()}
    step()
    for name, parameter in built[0].named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("detector", DETECTORS)
def test_an_inference_step_ends_with_masks(detector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On either backbone, with random weights, as many as a detector may have."""
    cfg = detector_config(detector, "cpu")
    cfg.defrost()
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    monkeypatch.setattr(detector_step, "detector_config", lambda *_: cfg)
    (found,) = make_inference_step(detector, "cpu", 1, SIZE, "float32")()  # type: ignore[misc]
    instances = found["instances"]
    assert len(instances) == 5
    assert (instances.scores > 0.5).all()
    assert instances.pred_masks.shape == (len(instances), *SIZE)


@pytest.mark.parametrize("detector", DETECTORS)
def test_random_features_are_of_a_trained_ones_size(detector: str) -> None:
    """In half precision they would overflow at 65,504, and vanish below 6e-8."""
    model: Any = build_detector(detector_config(detector, "cpu")).eval()
    with torch.no_grad():
        maps = model.backbone(torch.randn(1, 3, 64, 64))
    for name, found in maps.items():
        assert 1e-2 < found.std() < 1e2, name


@pytest.mark.usefixtures("small")
def test_a_report_goes_into_its_table() -> None:
    report = detector_step_report("cpu", 2, SIZE, "float32", 1)
    table = detector_step_section(report)
    for kind in KINDS:
        costs = report["steps"][kind]
        assert {*costs} == {*DETECTORS}
        assert costs["R50-FPN"]["time_ratio"] == 1
        assert all(f"{kind}, {name}" in table for name in DETECTORS)
    with pytest.raises(UserError, match="--size is 0; expected 1 or more"):
        detector_step_report("cpu", 2, (64, 0), "float32", 1)


def test_the_table_has_both_kinds() -> None:
    costs = {
        "spnas_100": {"seconds": 3.0, "time_ratio": 0.5},
        "R50-FPN": {"seconds": 6.0, "time_ratio": 1.0},
    }
    study = {
        **{"command": "python x", "hardware": "a CPU", "size": [800, 1216], "batch": 2},
        "precision": "float32",
        "steps": {"training": costs, "inference": costs},
    }
    rows = detector_step_section(study).splitlines()
    assert [" ".join(row.split()) for row in rows[2:6]] == [
        "| training, spnas_100 | 2 | 3.00 s | 0.50 |",
        "| training, R50-FPN | 2 | 6.00 s | 1.00 |",
        "| inference, spnas_100 | 1 | 3.00 s | 0.50 |",
        "| inference, R50-FPN | 1 | 6.00 s | 1.00 |",
    ]
