"""Lite pyramids and heads: the same maps at a fraction of the cost, by configuration alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import Conv2d
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from detection import add_spnas_config
from detection.modeling.heads.lite import separable
from detection.report import count_macs, count_parameters
from tests.tiny_coco import ROOT


def load(name: str, *options: str) -> CfgNode:
    cfg = get_cfg()
    add_spnas_config(cfg)
    cfg.merge_from_file(str(Path(ROOT, "configs/detection", name)))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.SPNAS.NORM", "BN", *options])
    return cfg


def test_a_separable_convolution_is_the_product_of_its_parts() -> None:
    """Against the dense kernel that the two factors multiply to."""
    conv = Conv2d(6, 8, 3, padding=1, norm=nn.BatchNorm2d(8), activation=nn.ReLU(), bias=False)
    lite = separable(conv).eval()
    images = torch.randn(2, 6, 9, 7)
    dense = lite.pointwise.weight * lite.depthwise.weight.squeeze(1)  # (8, 6, 1, 1) · (6, 3, 3)
    bias = (lite.pointwise.weight[:, :, 0, 0] * lite.depthwise.bias).sum(1)
    expected = nn.functional.conv2d(images, dense, bias, padding=1)
    expected = torch.relu(expected / (1 + conv.norm.eps) ** 0.5)  # a fresh norm in eval mode
    torch.testing.assert_close(lite(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["mask_rcnn", "retinanet"])
def test_every_convolution_of_the_pyramid_is_replaced(kind: str) -> None:
    name = f"{kind}_spnas_fpn_1x.yaml"
    heavy = build_backbone(load(name)).eval()
    light = build_backbone(load(name, "MODEL.FPN.LITE", "True")).eval()
    levels = [n for n, _ in light.named_children() if n.startswith("fpn_output")]
    assert levels == [n for n, _ in heavy.named_children() if n.startswith("fpn_output")]
    # the list that forward() walks is the modules that are trained, from coarse to fine
    assert light.output_convs == [light.get_submodule(n) for n in reversed(levels)]
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = {level: maps.shape for level, maps in heavy(images).items()}
        assert {level: maps.shape for level, maps in light(images).items()} == expected
    # 256·256·9 + 256 weights a level become 256·9 + 256·256 and a bias each
    saved = (256 * 256 * 9) - (256 * 9 + 256 + 256 * 256)
    assert count_parameters(heavy) - count_parameters(light) == len(levels) * saved
    assert count_macs(light, (3, 64, 96)) < count_macs(heavy, (3, 64, 96)) / 2


@pytest.mark.parametrize("kind", ["mask_rcnn", "retinanet"])
def test_lite_detectors_learn_everywhere(kind: str) -> None:
    model = build_model(load(f"{kind}_spnas_lite_fpn_1x.yaml"))
    spatial = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1 and max(module.kernel_size) > 1
        if not name.startswith("backbone.bottom_up")
    ]
    kept = {
        "mask_rcnn": [],
        "retinanet": [
            *("backbone.top_block.p6", "backbone.top_block.p7"),
            *("head.cls_score", "head.bbox_pred"),
        ],
    }
    assert spatial == kept[kind]
    target = Instances((64, 64))
    target.gt_boxes = Boxes(torch.tensor([[4.0, 4.0, 44.0, 50.0]]))
    target.gt_classes = torch.tensor([3])
    target.gt_masks = BitMasks(torch.ones(1, 64, 64, dtype=torch.bool))
    with EventStorage():
        losses = model([{"image": torch.rand(3, 64, 64) * 255, "instances": target}] * 2)
    sum(losses.values()).backward()
    heads = [p for n, p in model.named_parameters() if "pointwise" in n or "depthwise" in n]
    assert heads
    assert all(p.grad is not None for p in heads)
