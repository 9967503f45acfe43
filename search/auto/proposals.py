"""What to train with: input size, anchors, epochs and batch, from the data and the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode

from backbones.errors import UserError
from detection.data.annotations.anchors import (
    STEP,
    InputSize,
    configured_anchors,
    input_boxes,
    input_size,
    proposed_anchors,
    proposed_size,
)
from detection.data.annotations.file import AnnotationFile
from detection.data.annotations.masks import Array
from detection.data.inspection import Inspection, other_pairs
from search.auto.data_facts import Proposal
from search.auto.schedule import RECIPE

LEAST_PART = 0.6
"""Of the start's runtime: what a search leaves of a network well below it is hardly worth it."""

_LEAST_OBJECT = 12
"""Pixels of a small object that a small budget is still worth: three cells of p2."""
_LEAST_SIDE = 192
_ENOUGH = 0.5
"""Part of the recipe's steps below which a smaller image is better."""

_IMAGES = 400
"""That the recipe's passes are for."""
_EPOCHS_RANGE = (3.0, 40.0)


@dataclass(frozen=True)
class Proposals:
    """What to train with.

    Attributes:
        size: of training and test images.
        deploy_size: height and width of the square image that the latency table is for.
        epochs: of the start's training.
        recipe_epochs: as many as there would be without a budget.
        batch: images of a step.
        images: of an epoch.
        keys: for the configuration of the detector, with their reasons.
    """

    size: InputSize
    deploy_size: tuple[int, int]
    epochs: float
    recipe_epochs: float
    batch: int
    images: int
    keys: tuple[Proposal, ...]

    def options(self) -> tuple[str, ...]:
        """Keys and values in turns, for any stage of the detector; without the epochs."""
        pairs = [(item.key, item.value) for item in self.keys if item.key != "SOLVER.EPOCHS"]
        return tuple(word for pair in pairs for word in pair)


def propose(
    cfg: CfgNode,
    found: Inspection,
    side: int | None = None,
    steps: Callable[[InputSize], float] | None = None,
    sides: tuple[int, int] | None = None,
) -> Proposals:
    """Proposes from the training set's own statistics.

    Args:
        cfg: of the detector, resolved; its own values stay where they fit as well.
        found: the data of the configuration, as ``look_at`` finds them.
        side: shorter side of the images in pixels that was asked for; None proposes one.
        steps: how many training steps of the start the budget has at a size; None: no budget.
        sides: smallest and largest shorter side that the targets allow (:func:`sides_for`); None:
            any.

    Raises:
        UserError: if the training set has no object with a box and a size of its image, or the
            side is none that can be trained at.
    """
    train = found.train_files
    wanted = proposed_size(train)
    if wanted is None:
        raise UserError(
            "the training set has no object with a box in an image of known size; annotate some"
        )
    images = _images(cfg, train)
    batch = min(cfg.SOLVER.IMS_PER_BATCH, images)
    whole = recipe_epochs(images)
    if side is None:
        size, why = _chosen_size(train, wanted, sides, steps, whole * images / batch)
    else:
        size, why = _asked_size(train, side), "as asked"
    affordable = math.inf if steps is None else steps(size) * batch / images
    epochs = round(min(whole, affordable), 2)
    boxes = input_boxes(train, size)
    keys = [
        *_size_keys(size, boxes, why, list(found.files.values())),
        *_anchor_keys(cfg, boxes, size.short),
        *_other_keys(cfg, found, images, batch),
        Proposal("SOLVER.EPOCHS", f"{epochs:g}", _epochs_reason(images, whole, epochs)),
    ]
    square = (size.short, size.short)
    return Proposals(size, square, epochs, whole, batch, images, tuple(keys))


def recipe_epochs(images: int) -> float:
    """Passes over a training set without a budget: 12 for 400 images, by the root of the number.

    Those of a network found come on top. The configuration for own photos is on such a curve:
    custom.yaml has 100 for some hundred, 50 for a thousand and 24 for five thousand images.
    """
    epochs = RECIPE["start"] * math.sqrt(_IMAGES / max(images, 1))
    return round(float(np.clip(epochs, *_EPOCHS_RANGE)), 1)


def sides_for(targets: Sequence[float], runtime: float, side: int) -> tuple[int, int]:
    """Sides between which the targets are worth a search: runtime grows with the pixels.

    At the smallest the start just takes the largest target, so that there is a network for it; at
    the largest the smallest target is :data:`LEAST_PART` of the start. Where no side does both,
    the smallest target counts.

    Args:
        targets: in ms.
        runtime: of the start with its pyramid on a square image, in ms.
        side: of that image in pixels.

    Returns:
        Two multiples of 32.
    """
    most = STEP * int(side * math.sqrt(min(targets) / (LEAST_PART * runtime)) / STEP)
    least = STEP * math.ceil(side * math.sqrt(max(targets) / runtime) / STEP)
    most = max(most, STEP)
    return min(least, most), most


def _chosen_size(
    train: Sequence[AnnotationFile],
    wanted: InputSize,
    sides: tuple[int, int] | None,
    steps: Callable[[InputSize], float] | None,
    recipe: float,
) -> tuple[InputSize, str]:
    """A size and why it is not the one that the data would have."""
    low, high = sides or (STEP, wanted.short)
    start = int(np.clip(wanted.short, low, max(low, high)))
    least = max(min(_least_side(train, start), start), min(low, start))
    why = ""
    if start != wanted.short:
        why = f"the data would have {wanted.short}, the targets ask for {start}"
    if steps is None:
        return input_size(train, start), why
    candidates = [input_size(train, at) for at in range(start, least - 1, -STEP)]
    fitting = (size for size in candidates if steps(size) >= _ENOUGH * recipe)
    size = next(fitting, candidates[-1])
    if size.short < start:
        why = f"the budget holds too few steps at {start}"
    return size, why


def _least_side(train: Sequence[AnnotationFile], side: int) -> int:
    """The smallest side at which nine tenths of the objects are worth training on."""
    small = float(np.quantile(_sides(input_boxes(train, input_size(train, side))), 0.1))
    needed = side * _LEAST_OBJECT / small
    return STEP * math.ceil(max(needed, _LEAST_SIDE) / STEP)


def _asked_size(train: Sequence[AnnotationFile], side: int) -> InputSize:
    if side < 2 * STEP or side % STEP:
        raise UserError(
            f"the size is {side}; expected a multiple of {STEP} pixels from {2 * STEP} on, the "
            f"shorter side of an image, such as {max(2 * STEP, STEP * round(side / STEP))}"
        )
    return input_size(train, side)


def _images(cfg: CfgNode, train: Sequence[AnnotationFile]) -> int:
    """Training images of an epoch."""
    if not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        return sum(len(file.images) for file in train)
    held = (np.unique(file.columns.image[file.columns.objects]) for file in train)
    return sum(map(len, held))


def _size_keys(
    size: InputSize, boxes: Array, why: str, files: Sequence[AnnotationFile]
) -> list[Proposal]:
    tenth, quarter = np.quantile(_sides(boxes), [0.1, 0.25])
    reason = (
        f"a tenth of the objects are below {tenth:.0f} px and a quarter below {quarter:.0f} px at "
        f"{size.short}"
    )
    aspect = f"19 of 20 images are at most {size.long / size.short:.2f} times as long as wide"
    held_out = max(input_size([file], size.short).long for file in files if _has_sizes(file))
    return [
        Proposal(
            "INPUT.MIN_SIZE_TRAIN", f"({size.short},)", "; ".join(filter(None, [reason, why]))
        ),
        Proposal("INPUT.MAX_SIZE_TRAIN", f"{size.long}", aspect),
        Proposal("INPUT.MIN_SIZE_TEST", f"{size.short}", "the training's"),
        Proposal("INPUT.MAX_SIZE_TEST", f"{held_out}", "as long as those of all data sets"),
    ]


def _has_sizes(file: AnnotationFile) -> bool:
    return bool((file.columns.sizes > 0).all(1).any())


def _anchor_keys(cfg: CfgNode, boxes: Array, side: int) -> list[Proposal]:
    """Anchors where others fit better than the configuration's."""
    found, ours = proposed_anchors(cfg, boxes), configured_anchors(cfg, boxes)
    if found is None or ours is None or found == ours:
        return []
    low, high = np.quantile(_sides(boxes), [0.05, 0.95])
    reasons = {
        "SIZES": f"nine tenths of the objects are {low:.0f} to {high:.0f} px at {side}; an object "
        f"and its best anchor overlap by {found.overlap:.2f}, by {ours.overlap:.2f} before",
        "ASPECT_RATIOS": "heights over widths in the middle of as many equal parts of the objects",
    }
    if found.ratios == ours.ratios:
        del reasons["ASPECT_RATIOS"]
    return [
        Proposal(key, str(value), reasons[name])
        for key, value in found.pairs().items()
        if (name := key.rpartition(".")[2]) in reasons
    ]


def _other_keys(cfg: CfgNode, found: Inspection, images: int, batch: int) -> list[Proposal]:
    files = list(found.files.values())
    reasons = {
        "TEST.DETECTIONS_PER_IMAGE": "as many objects as the fullest image has",
        "INPUT.MASK_FORMAT": "the masks are run-length encoded",
        "MODEL.MASK_ON": "the annotations have boxes alone",
    }
    pairs = other_pairs(cfg, found.train_files, files)
    keys = [
        Proposal(key, str(value), reasons.get(key, "what the data have"))
        for key, value in pairs.items()
    ]
    if cfg.INPUT.RANDOM_FLIP == "horizontal" and (why := _mirrored(found.train_files)):
        keys.append(Proposal("INPUT.RANDOM_FLIP", "none", why))
    if batch != cfg.SOLVER.IMS_PER_BATCH:
        keys.append(
            Proposal("SOLVER.IMS_PER_BATCH", str(batch), f"there are {images} training images")
        )
    return keys


def _mirrored(train: Sequence[AnnotationFile]) -> str:
    """Why a mirrored object can be one of another class; empty where no name says so."""
    names = [str(item["name"]).lower() for file in train for item in file.categories]
    turned = [name for name in names if "left" in name and name.replace("left", "right") in names]
    if turned:
        other = turned[0].replace("left", "right")
        return f"mirrored, '{turned[0]}' would be '{other}'"
    if all(len(name) == 1 for name in names):
        return "a mirrored letter or digit is another one"
    return ""


def _epochs_reason(images: int, whole: float, epochs: float) -> str:
    recipe = f"{whole:g} passes are the recipe for {images:,} images"
    return recipe if epochs >= whole else f"{recipe}; the budget holds {epochs:g}"


def _sides(boxes: Array) -> Array:
    """(N) sides of squares of the boxes' areas."""
    found: Array = np.sqrt(boxes.prod(1))
    return found
