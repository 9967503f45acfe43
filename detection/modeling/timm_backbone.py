"""Any network of timm's as the backbone of a Detectron2 model, to compare with."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import timm
import torch
from detectron2.config import CfgNode
from timm.layers import Format
from timm.layers.norm_act import convert_sync_batchnorm, freeze_batch_norm_2d
from torch import Tensor, nn

from backbones.architecture import InputSpec
from backbones.errors import UserError
from backbones.hub import find_on_hub, is_hub_name
from backbones.published import downloading
from backbones.zoo import nearest
from detection.modeling.backbone import DEFAULT_FEATURES, FEATURES, NamedBackbone
from detection.modeling.pixels import warn_of_pixels

logger = logging.getLogger(__name__)

NORMS = ("FrozenBN", "BN", "SyncBN")
# Height and width of the image that tries a network out: multiples of 32, not square, small.
PROBE_SIZE = (128, 96)

BatchNorm = nn.BatchNorm2d | nn.SyncBatchNorm


class TimmBackbone(NamedBackbone):
    """The feature maps of a ``features_only`` model of timm's, with Detectron2's names.

    The map at stride 4 is ``res2``, and so on; of several maps at one stride it is the last. A
    small image tells, when the backbone is built, whether the maps are what timm declares.
    Parameters that no map depends on do not learn.
    """

    config_key = "MODEL.TIMM"
    model: Any

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        norm: str = "FrozenBN",
        out_features: Sequence[str] = DEFAULT_FEATURES,
        freeze_at: int = 0,
    ) -> None:
        """Builds the network.

        Args:
            name: of timm's, a tag after a dot included (``resnet50.a1_in1k``);
                ``hf-hub:org/name`` or ``local-dir:/folder`` as well.
            pretrained: download its weights.
            norm: ``BN`` keeps batch norms as they are, ``FrozenBN`` freezes them, ``SyncBN``
                computes their statistics over all GPUs. Other norms stay as they are.
            out_features: of ``res1`` to ``res5``, at strides 2 to 32.
            freeze_at: 0 freezes nothing; n all that the map ``res<n>`` depends on.

        Raises:
            UserError: if timm has no such network, it has no such maps or takes images of one
                size only, or a value is none of those above.
        """
        super().__init__()
        self.name = name
        if norm not in NORMS:
            raise UserError(
                f"MODEL.TIMM.NORM is '{norm}'; expected one of {', '.join(NORMS)}: a published "
                "network keeps its kind of normalisation"
            )
        self.model = _convert_norms(_create(name, pretrained), norm, pretrained)
        strides = self.model.feature_info.reduction()
        self._index_of = {
            feature: max(index for index, value in enumerate(strides) if value == stride)
            for feature, stride in FEATURES.items()
            if stride in strides
        }
        self._out_features = [feature for feature in FEATURES if feature in set(out_features)]
        self._check_features(out_features, f"MODEL.TIMM.OUT_FEATURES is {list(out_features)}")
        channels = self.model.feature_info.channels()
        self._out_feature_strides = {feature: FEATURES[feature] for feature in self._out_features}
        self._out_feature_channels = {
            feature: channels[self._index_of[feature]] for feature in self._out_features
        }
        self._freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) → maps (N, C, ceil(H/stride), ceil(W/stride)) by name."""
        maps = self._maps(x)
        return {feature: maps[self._index_of[feature]] for feature in self._out_features}

    def classifier(self) -> nn.Module:
        """The whole classification network with its classes, freshly initialised."""
        return _create_model(self.name)

    def _maps(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model(x)
        if getattr(self.model, "output_fmt", Format.NCHW) == Format.NHWC:
            maps = [tensor.permute(0, 3, 1, 2).contiguous() for tensor in maps]
        return maps

    def _check_features(self, features: Sequence[str], reason: str) -> None:
        missing = [feature for feature in features if feature not in self._index_of]
        if missing or not features:
            raise UserError(
                f"{reason}, but '{self.name}' has maps at strides "
                f"{self.model.feature_info.reduction()}; expected some of "
                f"{', '.join(self._index_of) or 'another network: it has none of res1 to res5'}"
            )

    def _freeze(self, freeze_at: int) -> None:
        if not 0 <= freeze_at <= len(FEATURES):
            raise UserError(
                f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}; expected 0 (nothing) to {len(FEATURES)}"
            )
        last = f"res{freeze_at}"
        if freeze_at:
            self._check_features([last], f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}")
        with torch.enable_grad():  # what a map depends on is read from gradients
            maps = self._probe()
            used = self._upstream([maps[self._index_of[name]] for name in self._out_features])
            frozen = self._upstream([maps[self._index_of[last]]]) if freeze_at else set()
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter in used and parameter not in frozen)
        for parent, name, norm in list(_batch_norms(self.model)):
            if norm.weight in frozen:
                setattr(parent, name, freeze_batch_norm_2d(norm))

    def _probe(self) -> list[Tensor]:
        """The maps of a small image, as the autograd graph has them.

        Raises:
            UserError: if the network does not take it, or its maps are not as declared.
        """
        training = self.training
        self.eval()
        try:
            maps = self._maps(torch.zeros(1, 3, *PROBE_SIZE))
        except (AssertionError, RuntimeError) as error:
            raise UserError(
                f"MODEL.TIMM.NAME is '{self.name}', which does not take images of any size "
                f"({str(error).splitlines()[0]}); choose a network for detection"
            ) from None
        finally:
            self.train(training)
        for name, shape in self.output_shape().items():
            sides = [math.ceil(side / shape.stride) for side in PROBE_SIZE]
            found = maps[self._index_of[name]].shape
            if list(found) != [1, shape.channels, *sides]:
                raise UserError(
                    f"MODEL.TIMM.NAME is '{self.name}', whose map '{name}' is {tuple(found)} for "
                    f"an image of {PROBE_SIZE}; a feature pyramid needs sides of {tuple(sides)}"
                )
        return maps

    def _upstream(self, maps: Sequence[Tensor]) -> set[nn.Parameter]:
        """The parameters that the maps depend on."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        total = torch.stack([tensor.sum() for tensor in maps]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
        return {p for p, g in zip(parameters, gradients, strict=True) if g is not None}


def _create(name: str, pretrained: bool) -> nn.Module:
    if is_hub_name(name):
        find_on_hub(name)  # says what is wrong with it better than timm does
        with downloading(f"'{name}'", "download its folder, and name it: local-dir:/path/to/it"):
            return _create_features(name, pretrained=pretrained)
    base = name.partition(".")[0]
    if not timm.is_model(base):
        near = ", ".join(nearest(base, timm.list_models()))
        hint = f"nearest: {near}" if near else "timm.list_models() has all"
        raise UserError(f"MODEL.TIMM.NAME is '{name}', which timm does not have; {hint}")
    tags = [item.partition(".")[2] for item in timm.list_pretrained(f"{base}.*")]
    if name != base and name.partition(".")[2] not in tags:
        raise UserError(
            f"MODEL.TIMM.NAME is '{name}': timm has no such weights of {base}; expected one of "
            f"{', '.join(f'{base}.{tag}' for tag in tags) or f'{base} alone'}"
        )
    if not pretrained:
        return _create_features(name)
    way_out = "set MODEL.TIMM.PRETRAINED to False, or download them where there is a network"
    with downloading(f"timm's weights '{name}'", way_out):
        return _create_features(name, pretrained=True)


def _create_features(name: str, **options: Any) -> nn.Module:
    try:
        return _create_model(name, features_only=True, **options)
    except (AssertionError, AttributeError, NotImplementedError, TypeError) as error:
        raise UserError(
            f"MODEL.TIMM.NAME is '{name}', which timm cannot build with features_only=True "
            f"({type(error).__name__}: {error}); choose another network"
        ) from error


def _create_model(name: str, **options: Any) -> nn.Module:
    model: nn.Module
    try:  # Swin's transformers take images of any size only when told to
        model = timm.create_model(name, strict_img_size=False, **options)
    except TypeError:
        model = timm.create_model(name, **options)
    return model


def _convert_norms(model: nn.Module, norm: str, pretrained: bool) -> nn.Module:
    if norm == "SyncBN":
        converted: nn.Module = convert_sync_batchnorm(model)
        return converted
    if norm == "FrozenBN":
        for _, _, module in _batch_norms(model):
            # a frozen zero would switch its residual branch off for good
            if not pretrained and module.affine and not module.weight.any():
                nn.init.ones_(module.weight)
        converted = freeze_batch_norm_2d(model)
        return converted
    return model


def _batch_norms(model: nn.Module) -> Iterator[tuple[nn.Module, str, BatchNorm]]:
    """Every batch norm with the module that holds it and its name there."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, BatchNorm):
                yield parent, name, child


def check_normalisation(cfg: CfgNode) -> None:
    """Warns if the detector normalises images otherwise than the weights were trained with."""
    if is_hub_name(cfg.MODEL.TIMM.NAME):
        normalisation = find_on_hub(cfg.MODEL.TIMM.NAME).normalisation
        if normalisation is None:
            return
        mean, std = normalisation
    else:
        source: Any = timm.get_pretrained_cfg(cfg.MODEL.TIMM.NAME)
        mean, std = source.mean, source.std
    images = InputSpec(mean=mean, std=std)
    warn_of_pixels(cfg, f"timm's network '{cfg.MODEL.TIMM.NAME}'", images)
