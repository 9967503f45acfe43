"""Pyramids are registered in pairs, over any backbone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone

import detection
from backbones import load_architecture
from detection.modeling.backbone import SPNASBackbone, build_trunk
from detection.modeling.pyramid import is_built_by, pyramid_builders, register_pyramids


@pytest.fixture
def registered() -> Iterator[tuple[str, str]]:
    """The names of the pyramids over a backbone of a user's own."""

    def build_own_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SPNASBackbone:
        return SPNASBackbone(build_trunk(load_architecture("mnasnet_b1"), "BN"))

    builders = register_pyramids("own", build_own_backbone)
    yield builders[0].__name__, builders[1].__name__
    for name in pyramid_builders("own"):
        del BACKBONE_REGISTRY._obj_map[name]


def test_a_backbone_of_ones_own(registered: tuple[str, str], tiny_cfg: CfgNode) -> None:
    assert registered == ("build_own_fpn_backbone", "build_retinanet_own_fpn_backbone")
    for name, top in zip(registered, ("p6", "p7"), strict=True):
        tiny_cfg.MODEL.BACKBONE.NAME = name
        pyramid = build_backbone(tiny_cfg)
        assert list(pyramid.output_shape())[-1] == top
        assert pyramid.bottom_up.name == "mnasnet_b1"


@pytest.mark.parametrize("name", ["spnas", "timm"])
def test_pyramids_are_registered_by_their_own_names(name: str) -> None:
    for builder in pyramid_builders(name):
        function = BACKBONE_REGISTRY.get(builder)
        assert function.__name__ == builder
        assert function.__doc__.startswith("Backbone and feature pyramid")
        assert getattr(detection, builder, function) is function
        assert is_built_by(name, builder)
    assert is_built_by(name, f"build_{name}_backbone")
    assert not is_built_by(name, f"build_not_{name}_backbone")
