"""``create_model`` and the zoo, with timm's habits."""

from __future__ import annotations

import os
from collections.abc import Sequence

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.network import (
    Classifier,
    FeatureExtractor,
    build_classifier,
    build_feature_extractor,
)
from backbones.schema import named_file, named_files
from backbones.weights import StateDict, from_timm, load_weights, model_state, read_checkpoint

ARCHS = "archs"


def list_models() -> list[str]:
    """Names of the architectures that come with the package."""
    return named_files(ARCHS)


def load_architecture(name_or_path: str | os.PathLike[str]) -> Architecture:
    """An architecture of the zoo by name, or any other by the path of its JSON file.

    Raises:
        UserError: if there is neither.
    """
    return Architecture.load(named_file(name_or_path, "architecture", ARCHS))


def create_model(
    name_or_path: str | os.PathLike[str],
    pretrained: bool = False,
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
        pretrained: load the ImageNet weights that the architecture's provenance names.
        num_classes: outputs of the classifier; 0 returns pooled features.
        features_only: return the feature maps of ``out_indices`` instead of logits.
        out_indices: of the maps at strides 2, 4, 8, 16 and 32.
        width_mult: channel multiplier (Fig. 7).
        drop_rate: dropout before the classifier.
        checkpoint_path: weights of this architecture (``backbone.pth``).

    Raises:
        UserError: if the name is unknown or the weights do not fit.
    """
    architecture = load_architecture(name_or_path).scaled(width_mult)
    if pretrained and checkpoint_path:
        raise UserError("give either pretrained=True or checkpoint_path, not both")
    model: Classifier | FeatureExtractor
    if features_only:
        model = build_feature_extractor(architecture, out_indices)
    else:
        model = build_classifier(architecture, num_classes, drop_rate)
    ignore: tuple[str, ...] = ("head.", "classifier.") if features_only else ()
    if checkpoint_path:
        state = model_state(read_checkpoint(checkpoint_path), os.fspath(checkpoint_path))
        load_weights(model, state, os.fspath(checkpoint_path), ignore)
    elif pretrained:
        if num_classes != 1000 and not features_only:
            ignore = ("classifier.",)
        load_weights(model, pretrained_state(architecture), f"{architecture.name}", ignore)
    return model


def pretrained_state(architecture: Architecture) -> StateDict:
    """ImageNet weights of a published network, downloaded by timm.

    Raises:
        UserError: if the architecture has none, timm is missing, or the download fails.
    """
    name = architecture.provenance.get("timm")
    if not isinstance(name, str):
        raise UserError(
            f"there are no pretrained weights for architecture '{architecture.name}'; "
            "train it with tools/train_classifier.py and pass checkpoint_path"
        )
    try:
        import timm
    except ModuleNotFoundError:
        raise UserError("pretrained weights need timm: pip install timm") from None
    try:
        state = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"could not download timm's weights '{name}' ({str(error).splitlines()[0]}); download "
            "them elsewhere, convert them with backbones.from_timm, and pass checkpoint_path"
        ) from None
    return from_timm(architecture, state)
