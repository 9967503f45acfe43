"""Whether a detector normalises images as its backbone's weights expect it."""

from __future__ import annotations

import logging
import shlex

from detectron2.config import CfgNode

from backbones.architecture import IMAGENET, InputSpec

logger = logging.getLogger(__name__)


def pixel_keys(images: InputSpec) -> tuple[str, ...]:
    """Keys and values, in turns, that make a detector normalise images so."""
    return (
        *("MODEL.PIXEL_MEAN", str(images.pixel_mean)),
        *("MODEL.PIXEL_STD", str(images.pixel_std)),
    )


def own_pixel_keys(images: InputSpec) -> tuple[str, ...]:
    """:func:`pixel_keys` where the figures are not ImageNet's, which the recipes have."""
    return () if images.normalises_as(IMAGENET.mean, IMAGENET.std) else pixel_keys(images)


def warn_of_pixels(cfg: CfgNode, what: str, images: InputSpec) -> None:
    """Warns, with the keys to add, if the configuration normalises images otherwise.

    Args:
        cfg: of the detector.
        what: begins the message: the network or its weights.
        images: what they expect.
    """
    mean, std = ([value / 255 for value in cfg.MODEL[key]] for key in ("PIXEL_MEAN", "PIXEL_STD"))
    if images.normalises_as(mean, std) and cfg.INPUT.FORMAT == "RGB":
        return
    keys = ("INPUT.FORMAT", "RGB", *pixel_keys(images))
    logger.warning(
        "%s: its weights expect other images than INPUT.FORMAT %s, MODEL.PIXEL_MEAN %s, "
        "MODEL.PIXEL_STD %s give; add %s",
        what,
        cfg.INPUT.FORMAT,
        list(cfg.MODEL.PIXEL_MEAN),
        list(cfg.MODEL.PIXEL_STD),
        shlex.join(keys),
    )
