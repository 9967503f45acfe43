"""The network of an architecture: trunk, classifier, and feature pyramid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from backbones.architecture import FEATURE_STRIDES, Architecture
from backbones.blocks import ConvNormAct, HiddenLayer, NormLayer, init_weights, make_layer, pad_same
from backbones.errors import UserError


@dataclass(frozen=True)
class Feature:
    """One feature map: its channels, its stride relative to the image, and where it comes from."""

    num_chs: int
    reduction: int
    module: str


class FeatureInfo(tuple[Feature, ...]):
    """The feature maps of a network, with timm's interface."""

    @classmethod
    def of(cls, architecture: Architecture) -> FeatureInfo:
        """All five: the last layer at stride 2, 4, 8, 16 and 32."""
        return cls(
            Feature(architecture.layers[index].out_channels, stride, f"layers.{index}")
            for index, stride in zip(architecture.feature_layers, FEATURE_STRIDES, strict=True)
        )

    def channels(self) -> list[int]:
        """Channels of every feature map."""
        return [feature.num_chs for feature in self]

    def reduction(self) -> list[int]:
        """Stride of every feature map."""
        return [feature.reduction for feature in self]

    def module_name(self) -> list[str]:
        """Name of the module that computes every feature map."""
        return [feature.module for feature in self]


class Trunk(nn.Module):
    """Stem and layers. The layers may be fixed blocks or the superkernels of a search."""

    def __init__(
        self, architecture: Architecture, layers: Iterable[nn.Module], norm_layer: NormLayer
    ) -> None:
        super().__init__()
        stem = architecture.stem
        self.architecture = architecture
        self.feature_layers = architecture.feature_layers  # TorchScript knows no architectures
        self.feature_info = FeatureInfo.of(architecture)
        self.stem = ConvNormAct(
            3, stem.out_channels, stem.kernel_size, norm_layer, stem.activation, stride=2
        )
        self.layers = nn.ModuleList(layers)
        assert len(self.layers) == len(architecture.layers)
        if architecture.padding == "same":
            pad_same(self)

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) → five maps (N, C_i, H/s, W/s) at strides 2, 4, 8, 16 and 32."""
        maps: list[Tensor] = []
        x = self.stem(x)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.feature_layers:
                maps.append(x)
        return maps


class Classifier(Trunk):
    """Trunk, 1×1 head, global average pooling, dropout and a linear classifier.

    Some networks have a hidden layer before the dropout.

    Attributes:
        num_features: channels of the head's map.
        head_hidden_size: of the vector that the classifier sees.
    """

    def __init__(
        self,
        architecture: Architecture,
        layers: Iterable[nn.Module],
        norm_layer: NormLayer,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(architecture, layers, norm_layer)
        if num_classes < 0:
            raise UserError(f"num_classes is {num_classes}; expected 0 (no classifier) or more")
        head = architecture.head
        self.num_classes = num_classes
        self.num_features = head.out_channels
        self.head = ConvNormAct(
            architecture.layers[-1].out_channels, head.out_channels, 1, norm_layer, head.activation
        )
        self.hidden: nn.Module = (
            HiddenLayer(head.out_channels, head.hidden_channels, head.activation)
            if head.hidden_channels
            else nn.Identity()
        )
        self.head_hidden_size = head.hidden_channels or head.out_channels
        self.dropout = nn.Dropout(drop_rate)
        self.classifier: nn.Module = (
            nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        )

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) → the head's map (N, C_head, H/32, W/32)."""
        return self.head(self.forward_intermediates(x)[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The head's map → logits (N, num_classes), or what the classifier sees (N, C_hidden)."""
        x = self.dropout(self.hidden(x.mean((2, 3))))
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) → logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def in_sequence(self) -> list[nn.Module]:
        """Stem, layers and all that follows; one after the other they compute ``forward``."""
        pool = GlobalAveragePool()
        return [
            *(self.stem, *self.layers, self.head),
            *(pool, self.hidden, self.dropout, self.classifier),
        ]


class GlobalAveragePool(nn.Module):
    """(N, C, H, W) → (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean over positions."""
        return x.mean((2, 3))


class FeatureExtractor(Trunk):
    """The trunk alone, returning the chosen feature maps as a list (timm's ``features_only``)."""

    def __init__(
        self,
        architecture: Architecture,
        layers: Iterable[nn.Module],
        norm_layer: NormLayer,
        out_indices: Sequence[int] = (0, 1, 2, 3, 4),
    ) -> None:
        super().__init__(architecture, layers, norm_layer)
        count = len(self.feature_info)
        for index in out_indices:
            if not -count <= index < count:
                raise UserError(f"out_indices has {index}; expected 0 to {count - 1}")
        self.out_indices = tuple(index % count for index in out_indices)
        self.feature_info = FeatureInfo(self.feature_info[index] for index in self.out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) → the maps of ``out_indices``."""
        maps = self.forward_intermediates(x)
        return [maps[index] for index in self.out_indices]


def fixed_layers(architecture: Architecture, norm_layer: NormLayer) -> list[nn.Module]:
    """The blocks of a fixed network, in order."""
    return [
        make_layer(channels, spec, norm_layer)
        for channels, spec in zip(architecture.in_channels, architecture.layers, strict=True)
    ]


def batch_norm(architecture: Architecture) -> NormLayer:
    """The default normalisation of an architecture."""
    return partial(nn.BatchNorm2d, eps=architecture.norm_eps)


def build_classifier(
    architecture: Architecture,
    num_classes: int = 1000,
    drop_rate: float = 0.0,
    norm_layer: NormLayer | None = None,
    residual_scale: float = 0.0,
) -> Classifier:
    """A freshly initialised classifier of ``architecture``.

    Args:
        architecture: of the network.
        num_classes: outputs of the classifier; 0 is none.
        drop_rate: dropout before the classifier.
        norm_layer: normalisation; batch norm by default.
        residual_scale: see :func:`backbones.blocks.init_weights`.
    """
    norm_layer = norm_layer or batch_norm(architecture)
    layers = fixed_layers(architecture, norm_layer)
    model = Classifier(architecture, layers, norm_layer, num_classes, drop_rate)
    init_weights(model, residual_scale)
    return model


def build_feature_extractor(
    architecture: Architecture,
    out_indices: Sequence[int] = (0, 1, 2, 3, 4),
    norm_layer: NormLayer | None = None,
) -> FeatureExtractor:
    """A freshly initialised feature extractor of ``architecture``."""
    norm_layer = norm_layer or batch_norm(architecture)
    layers = fixed_layers(architecture, norm_layer)
    model = FeatureExtractor(architecture, layers, norm_layer, out_indices)
    init_weights(model)
    return model
