"""The split into static networks and steps in NumPy against the whole detector in PyTorch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import StandardROIHeads
from torch import nn

from backbones import UserError
from detection.export.contracts import divisor_of, image_rule
from detection.export.networks import describe, static_networks
from detection.export.postprocess import Detections, detect
from detection.export.running import found_again, run_modules
from detection.prediction.predictor import CheckpointDetector
from tests.detection.export.conftest import MakeDetector

RETINANET = (
    *("MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.RETINANET.NUM_CLASSES", "3"),
    *("MODEL.BACKBONE.NAME", "build_retinanet_spnas_fpn_backbone"),
    *("MODEL.SPNAS.OUT_FEATURES", "['res3', 'res4', 'res5']"),
    *("MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']"),
    *("MODEL.RETINANET.SCORE_THRESH_TEST", "0.3"),
)
MANY = (
    *("TEST.DETECTIONS_PER_IMAGE", "100", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", "200", "MODEL.ROI_HEADS.NMS_THRESH_TEST", "0.9"),
)
KINDS = {
    "mask": (),
    "classes_share": (
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
        *("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", "True"),
    ),
    "faster": ("MODEL.MASK_ON", "False"),
    "bgr": ("INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", "[100.0, 110.0, 120.0]"),
    "lite": (
        *("MODEL.FPN.LITE", "True", "MODEL.RPN.HEAD_NAME", "LiteRPNHead"),
        *("MODEL.ROI_BOX_HEAD.NAME", "LiteBoxHead", "MODEL.ROI_BOX_HEAD.NUM_CONV", "1"),
        *("MODEL.ROI_MASK_HEAD.NAME", "LiteMaskHead"),
    ),
    "many": MANY,
    "one": ("TEST.DETECTIONS_PER_IMAGE", "1"),
    "none": ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "1.0"),
    "retinanet": RETINANET,
    "lite_retinanet": (*RETINANET, "MODEL.META_ARCHITECTURE", "LiteRetinaNet"),
    "retinanet_none": (*RETINANET, "MODEL.RETINANET.SCORE_THRESH_TEST", "1.0"),
}
FOUND = {"many": 100, "one": 1, "none": 0, "retinanet_none": 0}


def split(cfg: CfgNode, model: nn.Module) -> tuple[dict[str, Any], Any]:
    """What a contract has of a detector after it was a file, and its networks in PyTorch."""
    networks = static_networks(model)
    detector = describe(model, networks)
    detector["image"] = image_rule(cfg, divisor_of(model), None)
    for head in {"boxes", "masks"} & set(detector):
        detector[head]["batch"] = None
    return json.loads(json.dumps(detector)), run_modules(networks)


def same(found: Detections, expected: Detections) -> None:
    assert len(found.boxes) == len(expected.boxes)
    assert found.classes.tolist() == expected.classes.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
    assert (found.masks is None) == (expected.masks is None)
    if expected.masks is not None and found.masks is not None:
        assert found.masks.shape == expected.masks.shape
        # pixels whose probability rounds to the threshold
        assert (found.masks != expected.masks).sum() <= 1e-3 * expected.masks.size


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_find_what_the_whole_finds(
    kind: str, make_detector: MakeDetector, image: np.ndarray
) -> None:
    cfg, model = make_detector(*KINDS[kind])
    detector, run = split(cfg, model)
    whole = CheckpointDetector(cfg, model)
    for picture in (image, image.transpose(1, 0, 2)[:50].repeat(2, 1)):
        expected = whole.predict(picture)
        assert len(expected.boxes) == FOUND.get(kind, len(expected.boxes))
        assert kind in FOUND or len(expected.boxes)
        same(detect(picture, detector, run), expected)


def test_batches_of_a_fixed_size(make_detector: MakeDetector, image: np.ndarray) -> None:
    """As LiteRT's heads are: boxes that do not fill the last batch make no difference."""
    cfg, model = make_detector()
    detector, run = split(cfg, model)
    expected = detect(image, detector, run)
    detector["boxes"]["batch"], detector["masks"]["batch"] = 3, 2
    sizes: dict[str, set[int]] = {}

    def counting(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes.setdefault(name, set()).add(len(next(iter(arrays.values()))))
        return run(name, arrays)

    same(detect(image, detector, counting), expected)
    assert sizes == {"image": {1}, "boxes": {3}, "masks": {2}}


def test_channels_last(make_detector: MakeDetector, image: np.ndarray) -> None:
    cfg, model = make_detector()
    detector, run = split(cfg, model)

    def turned(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = run(name, {key: x.transpose(0, 3, 1, 2).copy() for key, x in arrays.items()})
        return {key: x.transpose(0, 2, 3, 1) if x.ndim == 4 else x for key, x in outputs.items()}

    same(detect(image, detector, turned, channels_last=True), detect(image, detector, run))


def test_a_canvas_holds_images_of_other_sizes(
    make_detector: MakeDetector, image: np.ndarray
) -> None:
    cfg, model = make_detector()
    detector, run = split(cfg, model)
    detector["image"]["canvas"] = [64, 96]
    shapes = []

    def watching(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if name == "image":
            shapes.append(arrays["image"].shape)
        return run(name, arrays)

    for picture in (image, image.transpose(1, 0, 2)):
        found = detect(picture, detector, watching)
        assert len(found.boxes)
        assert (found.boxes[:, 2:] <= picture.shape[1::-1]).all()
        assert found.masks is not None
        assert found.masks.shape[1:] == picture.shape[:2]
    assert shapes == [(1, 3, 64, 96)] * 2


def test_what_is_not_finite_is_left_out(make_detector: MakeDetector, image: np.ndarray) -> None:
    cfg, model = make_detector()
    detector, run = split(cfg, model)

    def broken(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {key: np.full_like(x, np.nan) for key, x in run(name, arrays).items()}

    assert len(detect(image, detector, broken).boxes) == 0


def test_masks_are_left_out_where_they_are_not_asked_for(
    make_detector: MakeDetector, image: np.ndarray
) -> None:
    cfg, model = make_detector()
    detector, run = split(cfg, model)
    names = []

    def listening(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names.append(name)
        return run(name, arrays)

    assert detect(image, detector, listening, masks=False).masks is None
    assert names == ["image", "boxes"]
    assert set(static_networks(model, masks=False)) == {"image", "boxes"}


def test_found_again() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], "f4")
    expected = Detections(boxes, np.ones(2, "f4"), np.array([0, 1]))
    assert found_again(expected, expected) == 2
    assert found_again(expected, expected._replace(classes=np.array([1, 1]))) == 1
    assert found_again(expected, expected._replace(boxes=boxes + 2)) == 0
    assert found_again(expected, expected.chosen(np.zeros(2, bool))) == 0


def test_detectors_with_other_steps_are_refused(make_detector: MakeDetector) -> None:
    class OtherHeads(StandardROIHeads):
        def forward(self, *arguments: Any, **others: Any) -> Any:
            return super().forward(*arguments, **others)

    ROI_HEADS_REGISTRY._do_register("OtherHeads", OtherHeads)
    try:
        for options, message in (
            (("MODEL.ROI_HEADS.NAME", "OtherHeads"), "MODEL.ROI_HEADS.NAME is OtherHeads"),
            (("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIPool"), "POOLER_TYPE is RoIPool"),
            (("MODEL.META_ARCHITECTURE", "ProposalNetwork"), "META_ARCHITECTURE is Proposal"),
        ):
            _, model = make_detector(*options)
            with pytest.raises(UserError, match=message):
                static_networks(model)
    finally:
        del ROI_HEADS_REGISTRY._obj_map["OtherHeads"]
    cfg, model = make_detector("INPUT.FORMAT", "YUV-BT.601")
    with pytest.raises(UserError, match="INPUT.FORMAT is YUV-BT.601"):
        image_rule(cfg, divisor_of(model), None)


def test_the_network_of_the_image_normalises_as_detectron2(make_detector: MakeDetector) -> None:
    _, model = make_detector()
    network = static_networks(model)["image"]
    image = 255 * torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps = model.backbone(model.preprocess_image([{"image": image[0]}]).tensor)
        found = dict(zip(network.outputs, network.module(image), strict=True))
    for name in ("p2", "p3", "p4", "p5"):
        torch.testing.assert_close(found[name], maps[name])
