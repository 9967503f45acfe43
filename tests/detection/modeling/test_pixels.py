"""A detector on a network whose weights expect other images than the recipe gives."""

from __future__ import annotations

import logging
import math
import shlex

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone

from backbones import load_architecture
from detection.modeling.pixels import own_pixel_keys, warn_of_pixels


def test_the_keys_to_add_are_said(tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    tiny_cfg.MODEL.SPNAS.ARCH = "efficientnet_lite0"
    tiny_cfg.MODEL.WEIGHTS = ""
    with caplog.at_level(logging.WARNING):
        build_backbone(tiny_cfg)
        assert not caplog.text  # from nothing, any images do
        tiny_cfg.MODEL.WEIGHTS = "package://efficientnet_lite0"
        build_backbone(tiny_cfg)
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("backbone 'efficientnet_lite0': its weights expect other images")
    tiny_cfg.merge_from_list(shlex.split(message.partition("; add ")[2]))
    assert tiny_cfg.MODEL.PIXEL_MEAN == [127.0, 127.0, 127.0]
    caplog.clear()
    build_backbone(tiny_cfg)
    assert not caplog.text
    tiny_cfg.INPUT.FORMAT = "BGR"
    warn_of_pixels(tiny_cfg, "it", load_architecture("efficientnet_lite0").input)
    assert "INPUT.FORMAT RGB" in caplog.text


def test_networks_of_imagenets_figures_change_no_recipe() -> None:
    assert own_pixel_keys(load_architecture("spnas_100").input) == ()
    assert own_pixel_keys(load_architecture("efficientnet_lite2").input) == (
        *("MODEL.PIXEL_MEAN", "[127.0, 127.0, 127.0]"),
        *("MODEL.PIXEL_STD", "[128.0, 128.0, 128.0]"),
    )


def test_maps_of_same_padding_fit_a_pyramid(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.SPNAS.ARCH, tiny_cfg.MODEL.WEIGHTS = "efficientnet_lite0", ""
    pyramid = build_backbone(tiny_cfg).eval()
    assert pyramid.size_divisibility == 32
    with torch.no_grad():
        maps = pyramid(torch.zeros(1, 3, 96, 160))
    for name, shape in pyramid.output_shape().items():
        sides = [math.ceil(side / shape.stride) for side in (96, 160)]
        assert list(maps[name].shape[2:]) == sides
