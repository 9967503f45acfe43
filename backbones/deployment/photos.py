"""From a photo to the input of an exported network, as its contract says, by Pillow and NumPy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backbones.deployment.contract import Preprocessing, Resizing

Pixels = NDArray[np.float32]

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "": Image.Resampling.BILINEAR,
}


def network_input(
    photo: Image.Image, preprocessing: Preprocessing, size: tuple[int, int] | None = None
) -> Pixels:
    """What a network is given for a photo.

    Args:
        photo: upright, RGB.
        preprocessing: of the contract.
        size: height and width of a network that takes no other; the photo is stretched to it
            where the contract has no rule for its size.

    Returns:
        (1, 3, H, W).
    """
    return normalised(pixels(photo, preprocessing, size), preprocessing)


def pixels(
    photo: Image.Image, preprocessing: Preprocessing, size: tuple[int, int] | None = None
) -> Pixels:
    """A photo at the network's size: (1, 3, H, W) from 0 to 255, in the network's colour order."""
    resized = _resized(photo, preprocessing.resizing, size)
    array = np.asarray(resized, dtype=np.float32)
    if preprocessing.colour_order == "BGR":
        array = array[:, :, ::-1]
    return np.ascontiguousarray(array.transpose(2, 0, 1)[None])


def normalised(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Pixels (N, 3, H, W) as the network expects them, padded to multiples of its divisor."""
    if preprocessing.mean is not None and preprocessing.std is not None:
        mean, std = (
            np.asarray(figures, np.float32)[:, None, None]
            for figures in (preprocessing.mean, preprocessing.std)
        )
        pixels = (pixels - mean) / std
    divisor = preprocessing.resizing.divisor
    below, right = (-side % divisor for side in pixels.shape[2:])
    if below or right:
        edges = ((0, 0), (0, 0), (0, below), (0, right))
        pixels = np.pad(pixels, edges, constant_values=preprocessing.resizing.padding)
    return pixels.astype(np.float32, copy=False)


def _resized(photo: Image.Image, rule: Resizing, size: tuple[int, int] | None) -> Image.Image:
    resample = _FILTERS[rule.interpolation]
    if rule.rule == "centre_crop":
        assert rule.size is not None
        assert rule.crop_pct is not None
        return _centre_crop(photo, rule.size, math.floor(rule.size / rule.crop_pct), resample)
    if rule.rule == "shorter_side":
        assert rule.size is not None
        photo = photo.resize(_by_shorter_side(photo.size, rule.size, rule.max_size), resample)
    if size is not None and photo.size != size[::-1]:
        photo = photo.resize(size[::-1], resample)
    return photo


def _centre_crop(
    photo: Image.Image, size: int, shorter: int, resample: Image.Resampling
) -> Image.Image:
    """As torchvision's ``Resize`` and ``CenterCrop``, one after the other."""
    width, height = photo.size
    least = min(width, height)
    width, height = int(shorter * width / least), int(shorter * height / least)
    photo = photo.resize((width, height), resample)
    left, upper = round((width - size) / 2), round((height - size) / 2)
    return photo.crop((left, upper, left + size, upper + size))


def _by_shorter_side(given: tuple[int, int], size: int, most: int | None) -> tuple[int, int]:
    """Width and height as Detectron2's ``ResizeShortestEdge`` finds them."""
    scale = size / min(given)
    width, height = given[0] * scale, given[1] * scale
    if most and max(width, height) > most:
        scale = most / max(width, height)
        width, height = width * scale, height * scale
    return int(width + 0.5), int(height + 0.5)
