"""``create_model``, with timm's habits."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from torch import nn

from backbones.errors import UserError
from backbones.hub import find_on_hub, hub_name, is_hub_name
from backbones.network import (
    Classifier,
    FeatureExtractor,
    build_classifier,
    build_feature_extractor,
)
from backbones.published import (
    download,
    find_published,
    hub_architecture,
    load_state,
    published_for,
)
from backbones.weights import StateDict, load_weights
from backbones.zoo import list_models, load_architecture

logger = logging.getLogger(__name__)

__all__ = ["create_model", "from_pretrained", "list_models", "load_architecture"]


def create_model(
    name_or_path: str | os.PathLike[str],
    pretrained: bool | str = False,
    *,
    num_classes: int | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] = (0, 1, 2, 3, 4),
    width_mult: float = 1.0,
    drop_rate: float = 0.0,
    checkpoint_path: str | os.PathLike[str] | None = None,
) -> Classifier | FeatureExtractor:
    """Builds a network, as ``timm.create_model`` does.

    Args:
        name_or_path: a name of :func:`list_models`, or an ``architecture.json``; or
            ``hf-hub:org/name`` or ``local-dir:/folder``, whose configuration names the network.
        pretrained: True loads the ImageNet weights that the architecture's provenance names for
            this width, or those at ``hf-hub:`` or ``local-dir:``; or an address of weights
            (``torchvision://mobilenet_v2``, ``hf-hub:timm/mobilenetv2_100.ra_in1k``).
        num_classes: outputs of the classifier; 0 returns pooled features. By default 1000, or as
            many as the configuration at ``hf-hub:`` or ``local-dir:`` names.
        features_only: return the feature maps of ``out_indices`` instead of logits.
        out_indices: of the maps at strides 2, 4, 8, 16 and 32.
        width_mult: channel multiplier (Fig. 7).
        drop_rate: dropout before the classifier.
        checkpoint_path: weights of this architecture, by whatever program: ``docs/weights.md``
            says which files can be read.

    Raises:
        UserError: if the name is unknown or the weights do not fit.
    """
    if pretrained and checkpoint_path:
        raise UserError("give either pretrained or checkpoint_path, not both")
    source = checkpoint_path or (pretrained if isinstance(pretrained, str) else None)
    if is_hub_name(name_or_path):
        hub = find_on_hub(os.fspath(name_or_path))
        base, scale = hub_architecture(hub)
        if hub.is_trunk and not features_only:
            raise UserError(
                f"'{hub.source}' has feature maps alone, without head and classifier; add "
                "features_only=True"
            )
        width_mult *= scale
        num_classes = hub.num_classes if num_classes is None else num_classes
        source = source or (hub.source if pretrained else None)
    else:
        base = load_architecture(name_or_path)
    num_classes = 1000 if num_classes is None else num_classes
    architecture = base.scaled(width_mult)
    model: Classifier | FeatureExtractor
    if features_only:
        model = build_feature_extractor(architecture, out_indices)
    else:
        model = build_classifier(architecture, num_classes, drop_rate)
    ignore: tuple[str, ...] = ("head.", "hidden.", "classifier.") if features_only else ()
    if source and (checkpoint_path or is_hub_name(source)):
        state = load_state(source, architecture)
        if pretrained and not features_only:
            ignore = _other_classifier(model, state, os.fspath(source))
        load_weights(model, state, os.fspath(source), ignore)
    elif pretrained:
        weights = find_published(str(pretrained)) if source else published_for(base, width_mult)
        if num_classes != 1000 and not features_only:
            ignore = ("classifier.",)
        load_weights(model, download(weights), weights.address, ignore)
    return model


def from_pretrained(name: str | os.PathLike[str], **options: Any) -> Classifier | FeatureExtractor:
    """A shared model with its weights: of a folder, or of Hugging Face's hub.

    Args:
        name: the folder, or ``USER/NAME`` of a repository; a revision may follow an ``@``.
        options: as of :func:`create_model`, e.g. ``features_only``.

    Raises:
        UserError: if there is no such model, it is a detector, or its weights do not fit.
    """
    return create_model(hub_name(name), pretrained=True, **options)


def _other_classifier(model: nn.Module, state: StateDict, where: str) -> tuple[str, ...]:
    """What need not fit in published weights: the classifier, if it is of another class count."""
    ours, theirs = model.state_dict().get("classifier.weight"), state.get("classifier.weight")
    if ours is None or (theirs is not None and theirs.shape == ours.shape):
        return () if ours is not None else ("classifier.",)
    logger.warning("'%s' has no classifier of %d classes: it starts afresh", where, len(ours))
    return ("classifier.",)
