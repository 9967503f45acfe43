"""Pictures whose boxes and masks are data, for loggers that draw them themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Objects:
    """What is in an image, or what was found in it: N objects.

    Attributes:
        boxes: (N, 4) left, top, right and bottom in pixels.
        classes: N numbers from 1 on.
        scores: N from 0 to 1; empty of the ground truth.
        mask: (H, W) number of the class at every pixel, 0 where none is; None without masks.
    """

    boxes: np.ndarray
    classes: tuple[int, ...]
    scores: tuple[float, ...] = ()
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Overlay:
    """An image with its ground truth, and what was found in it.

    Attributes:
        image: (H, W, 3) bytes in RGB.
        caption: below it.
        labels: names of the classes by their numbers.
        truth: the ground truth.
        found: the predictions.
    """

    image: np.ndarray
    caption: str
    labels: Mapping[int, str]
    truth: Objects
    found: Objects
