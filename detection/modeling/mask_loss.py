"""The mask loss of objects that have a mask; others train the box alone."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.structures import Instances
from torch import nn

from detection.data.instances import HAS_MASK


def leave_out_objects_without_mask(model: nn.Module) -> None:
    """Keeps proposals of objects without a mask away from every mask head, in training.

    Args:
        model: a detector; it is changed. Without one of Detectron2's mask heads nothing happens.
    """
    for module in model.modules():
        if isinstance(module, BaseMaskRCNNHead):
            module.register_forward_pre_hook(_with_masks)


def _with_masks(head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Features, pooled (N, C, H, W) or of whole images, and the proposals of every image."""
    features, instances, *others = inputs
    if not head.training:
        return None
    kept = [_has_mask(proposals) for proposals in instances]
    if all(bool(rows.all()) for rows in kept):
        return None
    if isinstance(features, torch.Tensor):
        features = features[torch.cat(kept).to(features.device)]
    proposals = [item[rows] for item, rows in zip(instances, kept, strict=True)]
    return features, proposals, *others


def _has_mask(proposals: Instances) -> torch.Tensor:
    """(N) truth values; an image without objects has no such field and no proposals here."""
    if proposals.has(HAS_MASK):
        found: torch.Tensor = proposals.get(HAS_MASK)
        return found
    return torch.ones(len(proposals), dtype=torch.bool)
