"""What a configuration's meta-architecture asks of data sets, by the class that it is of.

Subclasses of Detectron2's detectors read the same keys as those. Of any other model, such as a
class of one's own with keys of its own or a function that builds one, nothing is known, and
nothing is asked.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
from detectron2.modeling.roi_heads import Res5ROIHeads, StandardROIHeads

from backbones.errors import UserError
from backbones.zoo import nearest

_SECTIONS: dict[type, str] = {RetinaNet: "RETINANET", GeneralizedRCNN: "ROI_HEADS"}
"""Where the detectors have their number of classes, below ``MODEL``."""


_REGISTRIES = {
    "META_ARCHITECTURE": META_ARCH_REGISTRY,
    "BACKBONE.NAME": BACKBONE_REGISTRY,
    "ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
    "RPN.HEAD_NAME": RPN_HEAD_REGISTRY,
    "ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
    "ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    "ROI_KEYPOINT_HEAD.NAME": ROI_KEYPOINT_HEAD_REGISTRY,
    "SEM_SEG_HEAD.NAME": SEM_SEG_HEADS_REGISTRY,
}
"""What Detectron2 looks names up in, by their keys below ``MODEL``."""


def check_registered_names(cfg: CfgNode) -> None:
    """Insists on names of model parts that Detectron2 knows; empty ones are not looked up.

    Raises:
        UserError: naming the key and the names that are like the one given.
    """
    for key in _REGISTRIES:
        _check_name(cfg, key)


def meta_architecture(cfg: CfgNode) -> Any:
    """The class or function that ``MODEL.META_ARCHITECTURE`` names.

    Raises:
        UserError: if none is registered by that name, naming those that are called alike.
    """
    _check_name(cfg, "META_ARCHITECTURE")
    return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)


def _check_name(cfg: CfgNode, key: str) -> None:
    registry = _REGISTRIES[key]
    name: Any = cfg.MODEL
    for part in key.split("."):
        name = name[part]
    if not name or name in registry:
        return
    known = sorted(registered for registered, _ in registry)
    near = " or ".join(map(repr, nearest(name, known)))
    hint = f"did you mean {near}?" if near else f"expected one of {', '.join(known)}."
    raise UserError(
        f"unknown MODEL.{key} '{name}'; {hint} One of your own is registered with Detectron2's "
        "registry in a module of detection/modeling/heads, or in one that a script of yours "
        "imports first"
    )


def num_classes_key(cfg: CfgNode) -> str | None:
    """The key that holds the model's number of classes; None if it has none, or its own."""
    section = _section(cfg)
    return f"MODEL.{section}.NUM_CLASSES" if section else None


def num_classes(cfg: CfgNode) -> int | None:
    """The number of classes that :func:`num_classes_key` holds; None where there is no key."""
    section = _section(cfg)
    return int(cfg.MODEL[section].NUM_CLASSES) if section else None


def wants_masks(cfg: CfgNode) -> bool:
    """Whether the model has Detectron2's mask head, so that data sets need masks."""
    return bool(cfg.MODEL.MASK_ON) and _section(cfg) == "ROI_HEADS" and _known_roi_heads(cfg)


def evaluated_tasks(cfg: CfgNode) -> list[str] | None:
    """What detections are scored for: ``bbox``, ``segm`` and ``keypoints``.

    None, for a model of which nothing is known, scores what its detections have.
    """
    section = _section(cfg)
    if section is None or (section == "ROI_HEADS" and not _known_roi_heads(cfg)):
        return None
    masks = ["segm"] if wants_masks(cfg) else []
    return ["bbox", *masks, *(["keypoints"] if cfg.MODEL.KEYPOINT_ON else [])]


def _section(cfg: CfgNode) -> str | None:
    found = meta_architecture(cfg)
    return next((name for base, name in _SECTIONS.items() if _is_a(found, base)), None)


def _known_roi_heads(cfg: CfgNode) -> bool:
    """Whether the ROI heads are, or extend, those that read ``MASK_ON``."""
    name = cfg.MODEL.ROI_HEADS.NAME
    found = ROI_HEADS_REGISTRY.get(name) if name in ROI_HEADS_REGISTRY else None
    return _is_a(found, StandardROIHeads, Res5ROIHeads)


def _is_a(found: Any, *bases: type) -> bool:
    return isinstance(found, type) and issubclass(found, bases)
