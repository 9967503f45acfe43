"""``create_model``, with timm's habits."""

from __future__ import annotations

import os
from collections.abc import Sequence

from backbones.errors import UserError
from backbones.network import (
    Classifier,
    FeatureExtractor,
    build_classifier,
    build_feature_extractor,
)
from backbones.published import download, find_published, load_state, published_for
from backbones.weights import load_weights
from backbones.zoo import list_models, load_architecture

__all__ = ["create_model", "list_models", "load_architecture"]


def create_model(
    name_or_path: str | os.PathLike[str],
    pretrained: bool | str = False,
    *,
    num_classes: int = 1000,
    features_only: bool = False,
    out_indices: Sequence[int] = (0, 1, 2, 3, 4),
    width_mult: float = 1.0,
    drop_rate: float = 0.0,
    checkpoint_path: str | os.PathLike[str] | None = None,
) -> Classifier | FeatureExtractor:
    """Builds a network, as ``timm.create_model`` does.

    Args:
        name_or_path: a name of :func:`list_models`, or an ``architecture.json``.
        pretrained: True loads the ImageNet weights that the architecture's provenance names for
            this width; or their address (``torchvision://mobilenet_v2``).
        num_classes: outputs of the classifier; 0 returns pooled features.
        features_only: return the feature maps of ``out_indices`` instead of logits.
        out_indices: of the maps at strides 2, 4, 8, 16 and 32.
        width_mult: channel multiplier (Fig. 7).
        drop_rate: dropout before the classifier.
        checkpoint_path: weights of this architecture: a ``backbone.pth``, or what timm,
            torchvision or pytorchcv saved of the same network.

    Raises:
        UserError: if the name is unknown or the weights do not fit.
    """
    base = load_architecture(name_or_path)
    architecture = base.scaled(width_mult)
    if pretrained and checkpoint_path:
        raise UserError("give either pretrained or checkpoint_path, not both")
    model: Classifier | FeatureExtractor
    if features_only:
        model = build_feature_extractor(architecture, out_indices)
    else:
        model = build_classifier(architecture, num_classes, drop_rate)
    ignore: tuple[str, ...] = ("head.", "hidden.", "classifier.") if features_only else ()
    if checkpoint_path:
        state, where = load_state(checkpoint_path, architecture), os.fspath(checkpoint_path)
        load_weights(model, state, where, ignore)
    elif pretrained:
        weights = (
            find_published(pretrained)
            if isinstance(pretrained, str)
            else published_for(base, width_mult)
        )
        if num_classes != 1000 and not features_only:
            ignore = ("classifier.",)
        load_weights(model, download(weights), weights.address, ignore)
    return model
