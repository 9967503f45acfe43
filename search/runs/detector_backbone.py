"""The supernet as the backbone of a Detectron2 model: a detector's own loss searches it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from backbones.errors import UserError
from detection.checkpointing import backbone_prefix
from detection.modeling.backbone import (
    DEFAULT_FEATURES,
    SPNASBackbone,
    backbone_config,
    build_trunk,
    norm_layer,
)
from detection.modeling.pixels import warn_of_pixels
from detection.modeling.pyramid import pyramid_builders, register_pyramids
from search.runs.formulations.registry import detector_formulation
from search.space import Choice
from search.start.seed import search_space
from search.supernets.export import exported_state
from search.supernets.single_path import Supernet


class SupernetBackbone(SPNASBackbone):
    """The trunk of a single-path supernet; decides anew in every forward pass.

    The maps that a pyramid takes have the same channels whatever is decided: a search space fixes
    the output channels of its layers. Parameters are called as in the supernet of a classification
    search (``stem.*``, ``layers.*``, ``thresholds.*``), so its checkpoint fits.
    """

    weights_hint = (
        "a search starts from the model_final.pth of a supernet of the same SEARCH.SPACE, such as "
        "search/imagenet_warmup.yaml leaves"
    )

    def __init__(
        self,
        supernet: Supernet,
        out_features: Sequence[str] = DEFAULT_FEATURES,
        freeze_at: int = 0,
    ) -> None:
        """Takes over trunk and thresholds; the classifier's head is left out.

        Args:
            supernet: of the space to search.
            out_features: of ``res1`` to ``res5``; the last is needed, or layers would be searched
                that nothing uses.
            freeze_at: 0, or 1 for stem and fixed first layers. A layer whose weights are frozen
                cannot be searched.

        Raises:
            UserError: if a searchable layer would be frozen, or left out.
        """
        if freeze_at > 1:
            raise UserError(
                f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}; a search decides by weights that "
                "train: expected 0, or 1 for the layers that are not searched"
            )
        if "res5" not in out_features:
            raise UserError(
                f"MODEL.SPNAS.OUT_FEATURES is {list(out_features)}; a search needs 'res5' among "
                "them, as the loss has to depend on every searchable layer"
            )
        super().__init__(supernet, out_features, freeze_at)
        self.thresholds = supernet.thresholds
        self._supernet = (supernet,)  # not a child: its head is no part of a detector

    @property
    def supernet(self) -> Supernet:
        """What decides; its stem and layers are this backbone's."""
        return self._supernet[0]

    def train(self, mode: bool = True) -> SupernetBackbone:
        """As in any module; the supernet decides differently in training and evaluation."""
        super().train(mode)
        self.supernet.training = mode
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) → maps (N, C, ceil(H/stride), ceil(W/stride)) by name."""
        self.supernet.prepare()
        return super().forward(x)


def build_supernet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SupernetBackbone:
    """The supernet of ``cfg.SEARCH`` as a backbone.

    Raises:
        UserError: if the formulation cannot search on a detector's losses, or the normalisation
            has no statistics of its own to find.
    """
    node = backbone_config(cfg, input_shape, SPNASBackbone.config_key)
    formulation = detector_formulation(cfg)
    if node.NORM == "FrozenBN":
        raise UserError(
            "MODEL.SPNAS.NORM is 'FrozenBN'; the frozen statistics of a supernet are those of no "
            "network in it: expected BN, SyncBN or GN"
        )
    space = search_space(cfg)
    if cfg.MODEL.WEIGHTS:
        warn_of_pixels(cfg, f"search space '{space.name}'", space.input)
    norm = norm_layer(node.NORM, space.largest().norm_eps)
    supernet = formulation.build_supernet(cfg, space, num_classes=0, norm_layer=norm)
    assert isinstance(supernet, Supernet)
    return SupernetBackbone(supernet, node.OUT_FEATURES, cfg.MODEL.BACKBONE.FREEZE_AT)


def fixed_backbone(cfg: CfgNode, supernet: Supernet, choices: Sequence[Choice]) -> SPNASBackbone:
    """A network of a detector's supernet with its weights, as the backbone that is exported.

    Args:
        cfg: of the detector.
        supernet: in the detector.
        choices: one per searchable layer.
    """
    architecture = supernet.space.architecture(choices, "found")
    with torch.device("meta"):  # without values of its own, as in export_network
        trunk = build_trunk(architecture, cfg.MODEL.SPNAS.NORM)
        backbone = SPNASBackbone(trunk, cfg.MODEL.SPNAS.OUT_FEATURES, cfg.MODEL.BACKBONE.FREEZE_AT)
    backbone.load_state_dict(backbone_state(supernet, choices), assign=True)
    return backbone


def backbone_in(detector: nn.Module) -> SPNASBackbone:
    """The backbone of a detector that has one of ours."""
    prefix = backbone_prefix(detector)
    assert prefix is not None
    backbone = detector.get_submodule(prefix[:-1])
    assert isinstance(backbone, SPNASBackbone)
    return backbone


def image_tensors(detector: Any, batches: Iterable[Any]) -> Iterator[Tensor]:
    """(N, 3, H, W) what a detector's backbone sees of every batch of its loader, one at a time."""
    for batch in batches:
        yield detector.preprocess_image(batch).tensor


def backbone_state(supernet: Supernet, choices: Sequence[Choice]) -> dict[str, Tensor]:
    """Stem and layers of a network with the supernet's weights, as a backbone calls them."""
    state = exported_state(supernet, choices)
    return {key: value for key, value in state.items() if key.startswith(("stem.", "layers."))}


register_pyramids("supernet", build_supernet_backbone)

FIXED_BUILDERS = dict(zip(pyramid_builders("supernet"), pyramid_builders("spnas"), strict=True))
"""Registered builder of the fixed backbone, by the builder of its supernet."""


def searches_detector(cfg: CfgNode) -> bool:
    """Whether a configuration searches on a detector's losses, and not on a classifier's."""
    return cfg.MODEL.BACKBONE.NAME in FIXED_BUILDERS
