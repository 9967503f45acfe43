"""A searched or published mobile network as the backbone of a Detectron2 model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from backbones.architecture import FEATURE_STRIDES, Architecture
from backbones.blocks import NormLayer, init_weights
from backbones.errors import UserError
from backbones.factory import load_architecture
from backbones.network import Trunk, build_classifier, fixed_layers
from detection.modeling.pixels import warn_of_pixels

FEATURES = {f"res{index}": stride for index, stride in enumerate(FEATURE_STRIDES, start=1)}
"""Strides of the feature maps, by Detectron2's names: ``res1`` (2) to ``res5`` (32)."""

DEFAULT_FEATURES = ("res2", "res3", "res4", "res5")


class NamedBackbone(Backbone):
    """A backbone that a table can name and compare with others.

    Attributes:
        config_key: where its options are in the configuration; error messages name it.
        name: of the network.
    """

    # values instead of annotations, which TorchScript could not read here
    config_key = ""
    name = ""

    def classifier(self) -> nn.Module:
        """The whole classification network with 1000 classes, freshly initialised."""
        raise NotImplementedError


class SPNASBackbone(NamedBackbone):
    """The feature maps of a trunk, with Detectron2's names and habits.

    The parameters are called as in ``backbone.pth`` (``stem.*``, ``layers.*``), so Detectron2's
    name matching finds them. Layers behind the last map asked for are left out.
    """

    config_key = "MODEL.SPNAS"
    # the way out where weights do not fit
    weights_hint = "set MODEL.SPNAS.ARCH and WIDTH_MULT to those that it was trained with"

    def __init__(
        self, trunk: Trunk, out_features: Sequence[str] = DEFAULT_FEATURES, freeze_at: int = 0
    ) -> None:
        """Takes over the modules of ``trunk``.

        Args:
            trunk: stem and layers; of a fixed network, or superkernels.
            out_features: of ``res1`` to ``res5``, at strides 2 to 32.
            freeze_at: see :meth:`freeze`.

        Raises:
            UserError: if a feature is unknown or ``freeze_at`` out of range.
        """
        super().__init__()
        unknown = [name for name in out_features if name not in FEATURES]
        if unknown or not out_features:
            raise UserError(
                f"MODEL.SPNAS.OUT_FEATURES is {list(out_features)}; expected some of "
                f"{', '.join(FEATURES)}"
            )
        architecture = trunk.architecture
        index_of = dict(zip(FEATURES, architecture.feature_layers, strict=True))
        self.architecture = architecture
        self.name = architecture.name
        self._out_features = sorted(set(out_features), key=FEATURES.__getitem__)
        self._taps = {index_of[name]: name for name in self._out_features}
        self._out_feature_strides = {name: FEATURES[name] for name in self._out_features}
        self._out_feature_channels = {
            name: architecture.layers[index].out_channels for index, name in self._taps.items()
        }
        self.stem = trunk.stem
        self.layers = trunk.layers[: max(self._taps) + 1]
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) → maps (N, C, ceil(H/stride), ceil(W/stride)) by name."""
        outputs = {}
        x = self.stem(x)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self._taps:
                outputs[self._taps[index]] = x
        return outputs

    def classifier(self) -> nn.Module:
        """The whole classification network with 1000 classes, freshly initialised."""
        return build_classifier(self.architecture)

    def freeze(self, freeze_at: int) -> SPNASBackbone:
        """Freezes the first stages, as Detectron2's ``ResNet.freeze`` does.

        Parameters stop learning, and batch norms become ``FrozenBatchNorm2d``.

        Args:
            freeze_at: 0 freezes nothing, 1 the stem and the layers up to stride 2, 2 also those
                of ``res2``, up to 5 for all of them.

        Returns:
            The backbone itself.
        """
        if not 0 <= freeze_at <= len(FEATURES):
            raise UserError(
                f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}; expected 0 (nothing) to "
                f"{len(FEATURES)} (the whole backbone)"
            )
        if freeze_at:
            last = self.architecture.feature_layers[freeze_at - 1]
            for module in (self.stem, *self.layers[: last + 1]):
                module.requires_grad_(False)
                FrozenBatchNorm2d.convert_frozen_batchnorm(module)
        return self


def norm_layer(norm: str, eps: float) -> NormLayer:
    """Detectron2's normalisation by name, with the epsilon of the architecture.

    Group norm has 8 channels per group, as Detectron2's 32 groups do not divide the widths of
    mobile networks.

    Raises:
        UserError: if Detectron2 does not know the name.
    """

    def build(channels: int) -> nn.Module:
        module = (
            nn.GroupNorm(channels // math.gcd(channels, 8), channels)
            if norm == "GN"
            else get_norm(norm, channels)
        )
        if isinstance(module, FrozenBatchNorm2d):
            return FrozenBatchNorm2d(channels, eps=eps)
        module.eps = eps
        return module

    try:
        if norm:
            build(8)
            return build
    except KeyError:
        pass
    raise UserError(
        f"MODEL.SPNAS.NORM is '{norm}'; expected FrozenBN, BN, SyncBN, GN or another "
        "normalisation of Detectron2's get_norm"
    )


def build_trunk(
    architecture: Architecture, norm: str = "FrozenBN", residual_scale: float = 0.0
) -> Trunk:
    """A freshly initialised trunk of fixed blocks.

    Args:
        architecture: of the network.
        norm: see :func:`norm_layer`.
        residual_scale: see :func:`backbones.blocks.init_weights`.
    """
    layer = norm_layer(norm, architecture.norm_eps)
    trunk = Trunk(architecture, fixed_layers(architecture, layer), layer)
    init_weights(trunk, residual_scale)
    return trunk


@BACKBONE_REGISTRY.register()
def build_spnas_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SPNASBackbone:
    """The backbone that ``cfg.MODEL.SPNAS`` describes."""
    node = backbone_config(cfg, input_shape, SPNASBackbone.config_key)
    architecture = load_architecture(node.ARCH).scaled(node.WIDTH_MULT)
    if cfg.MODEL.WEIGHTS:  # a detector that starts from nothing gets used to any images
        warn_of_pixels(cfg, f"backbone '{architecture.name}'", architecture.input)
    return SPNASBackbone(
        build_trunk(architecture, node.NORM), node.OUT_FEATURES, cfg.MODEL.BACKBONE.FREEZE_AT
    )


def backbone_config(cfg: CfgNode, input_shape: ShapeSpec, key: str) -> CfgNode:
    """The node ``key`` (``MODEL.SPNAS``) of the configuration, for images of three channels.

    Raises:
        UserError: if the configuration lacks them, or images have other channels.
    """
    if input_shape.channels != 3:
        raise UserError(
            f"MODEL.PIXEL_MEAN has {input_shape.channels} values; the backbones take 3 channels"
        )
    node = cfg.MODEL.get(key.partition(".")[2])
    if node is None:
        raise UserError(
            f"the configuration has no {key}; call detection.add_spnas_config(cfg) before "
            "merging files into it"
        )
    return node
