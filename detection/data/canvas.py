"""Drawing primitives of the digits data set: backgrounds, clutter, digit shapes, ink and noise.

Canvases are float32 arrays (H, W, 3) with values in 0..255; digits are 8x8 grey images in 0..1.
Every function takes its random numbers from the ``numpy.random.Generator`` it is given, so an
image depends on its own seed alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Canvas = NDArray[np.float32]
Range = tuple[float, float]

_PAD = 2  # empty source pixels around a digit, so that a rotated one is never cut
_SHARPEN = 0.6  # strength of the unsharp mask on the 8x8 scan
_COARSE = 128  # pixels: a larger digit is slanted at this size, then enlarged


def uniform(rng: np.random.Generator, bounds: Range) -> float:
    """Draws from the closed-open interval ``bounds``."""
    return float(rng.uniform(*bounds))


def _resize(grid: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    image = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32)


def background(
    rng: np.random.Generator,
    height: int,
    width: int,
    ground: Range,
    texture: Range,
    clutter: tuple[int, int],
    contrast: Range,
) -> Canvas:
    """A canvas with a colour gradient, cloudy texture, often stripes, and clutter.

    Args:
        height: pixels.
        width: pixels.
        ground: range of the mean colour, grey levels per channel.
        texture: range of the texture's amplitude, grey levels.
        clutter: fewest and most shapes that are no digits.
        contrast: of those shapes (see `ink_colour`).

    Returns:
        float32 (height, width, 3).
    """
    # Drawn at half size and enlarged: faster, and the shapes get outlines as soft as the digits'.
    half = _texture(rng, -(-height // 2), -(-width // 2), ground, uniform(rng, texture))
    image = Image.fromarray(np.clip(half, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(clutter[0], clutter[1] + 1))):
        _draw_shape(rng, draw, half, contrast)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _texture(
    rng: np.random.Generator, height: int, width: int, ground: Range, amplitude: float
) -> Canvas:
    base = rng.uniform(*ground, 3)
    corners = np.clip(base + rng.normal(0, 30, (2, 2, 3)), 20, 235).astype(np.float32)
    canvas = np.stack([_resize(corners[..., c], height, width) for c in range(3)], axis=-1)
    for cells in (int(rng.integers(3, 6)), int(rng.integers(8, 20))):
        grey = _resize(rng.normal(0, 1, (cells, cells)).astype(np.float32), height, width)
        tint = rng.uniform(0.6, 1.0, 3).astype(np.float32)
        canvas += (0.7 * amplitude * grey)[..., None] * tint
    if rng.random() < 0.5:
        canvas += _stripes(rng, height, width, amplitude)[..., None]
    return canvas


def _stripes(
    rng: np.random.Generator, height: int, width: int, texture: float
) -> NDArray[np.float32]:
    angle = uniform(rng, (0, math.pi))
    period = uniform(rng, (0.04, 0.2)) * max(height, width)
    phase = uniform(rng, (0, 2 * math.pi))
    rows = np.arange(height, dtype=np.float32)[:, None] * math.sin(angle)
    columns = np.arange(width, dtype=np.float32)[None, :] * math.cos(angle)
    wave = np.sin((rows + columns) * (2 * math.pi / period) + phase)
    return (uniform(rng, (0.2, 0.8)) * texture * wave).astype(np.float32)


def _draw_shape(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, canvas: Canvas, contrast: Range
) -> None:
    """A stroke, arc, outline, disc or polygon anywhere on the canvas."""
    rows, columns = canvas.shape[:2]
    x, y = uniform(rng, (0, columns)), uniform(rng, (0, rows))
    under = canvas[int(y), int(x)]
    colour: Any = tuple(int(v) for v in ink_colour(rng, under, contrast))
    radius = min(rows, columns) * uniform(rng, (0.04, 0.22))
    stroke = round(1 + uniform(rng, (0, 0.025)) * min(rows, columns))
    box = (x - radius, y - radius * 0.7, x + radius, y + radius * 0.7)
    kind = int(rng.integers(5))
    if kind == 0:  # a straight or bent stroke
        points = np.array((x, y)) + rng.uniform(-radius, radius, (int(rng.integers(2, 4)), 2))
        draw.line([tuple(p) for p in points.tolist()], fill=colour, width=stroke, joint="curve")
    elif kind == 1:
        start = int(rng.integers(360))
        draw.arc(box, start, start + int(rng.integers(60, 160)), fill=colour, width=stroke)
    elif kind == 2:
        draw.rectangle(box, outline=colour, width=stroke)
    elif kind == 3:
        draw.ellipse(box, fill=colour)
    else:
        angles = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 6))))
        corners = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
        draw.polygon([tuple(p) for p in corners.tolist()], fill=colour)


def sharpen(digits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Opens the holes that the scan's averaging to 8x8 has filled; (N, 8, 8) to the same."""
    padded = np.pad(digits, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    sharp = digits + _SHARPEN * (digits - windows.mean(axis=(3, 4)))
    clipped: NDArray[np.float32] = np.clip(sharp, 0, 1).astype(np.float32)
    return clipped


def digit_alpha(
    rng: np.random.Generator,
    digit: NDArray[np.float32],
    height: float,
    rotation: float,
    threshold: Range,
    edge: float,
) -> NDArray[np.float32]:
    """Upsamples a digit smoothly, with a random slant, aspect and stroke weight.

    Args:
        digit: (8, 8) in 0..1.
        height: pixels that the digit's 8 rows become.
        rotation: largest rotation, degrees.
        threshold: intensities from which the stroke's outline is drawn; a lower one is a bolder
            stroke.
        edge: pixels over which the outline goes from 0 to 1; 0 gives a hard outline.

    Returns:
        Opacity (h, w) in 0..1, cropped to where it is positive; the digit's body is where it is
        at least 0.5.
    """
    level = uniform(rng, threshold)
    side = math.ceil(1.3 * height)  # holds the digit at any slant
    coarse = min(side, _COARSE)
    slanted = _slant(rng, np.pad(digit, _PAD), coarse, height * coarse / side, rotation)
    intensity = _resize(slanted, side, side) if side > coarse else slanted
    distance = (intensity - level) * (height / digit.shape[0])  # pixels, roughly
    soft = np.clip(0.5 + distance / edge, 0, 1) if edge > 0 else distance >= 0
    return crop(soft.astype(np.float32))


def _slant(
    rng: np.random.Generator,
    source: NDArray[np.float32],
    side: int,
    height: float,
    rotation: float,
) -> NDArray[np.float32]:
    """Rotates, shears and stretches a padded digit into the middle of a square of ``side``."""
    scale = height / (source.shape[0] - 2 * _PAD)
    aspect = uniform(rng, (0.85, 1.15))
    angle = math.radians(uniform(rng, (-rotation, rotation)))
    shear = uniform(rng, (-0.12, 0.12))
    # The output pixel (x, y) looks up the source at A (x - side/2, y - side/2) + centre.
    cos, sin, centre = math.cos(angle) / scale, math.sin(angle) / scale, source.shape[0] / 2
    a, b = (cos - shear * sin) / aspect, (sin + shear * cos) / aspect
    offset_x, offset_y = centre - (a + b) * side / 2, centre - (cos - sin) * side / 2
    image = Image.fromarray(source).transform(
        (side, side),
        Image.Transform.AFFINE,
        (a, b, offset_x, -sin, cos, offset_y),
        resample=Image.Resampling.BICUBIC,
    )
    return np.asarray(image, dtype=np.float32)


def crop(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """The tight window of the positive values; all of ``alpha`` if there is none."""
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if rows.size == 0:
        return alpha
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def ink_colour(
    rng: np.random.Generator, under: NDArray[np.float32], contrast: Range, dark: float = 0.5
) -> NDArray[np.float32]:
    """A colour at a chosen distance from the one below it.

    Args:
        under: mean colour below the ink, (3,) in 0..255.
        contrast: mean absolute difference over the channels, as a share of the full range.
        dark: probability of a colour darker than the one below it.

    Returns:
        (3,) in 0..255.
    """
    wanted = uniform(rng, contrast)
    direction = np.abs(1 + rng.normal(0, 0.5, 3))
    direction = direction / direction.mean()
    darker = bool(rng.random() < dark)
    shift = (wanted * 255 * direction).astype(np.float32)
    candidates: list[NDArray[np.float32]] = [
        np.clip(under + shift, 0, 255),
        np.clip(under - shift, 0, 255),
    ]
    reached = [float(np.abs(c - under).mean()) for c in candidates]
    # Prefer the drawn side unless clipping at black or white took the contrast away.
    side = int(darker)
    if reached[side] < 0.9 * wanted * 255:
        side = int(np.argmax(reached))
    return candidates[side]


def paint(
    canvas: Canvas, alpha: NDArray[np.float32], top: int, left: int, colour: NDArray[np.float32]
) -> None:
    """Blends ``colour`` into ``canvas`` in place; parts outside the canvas are left out.

    Args:
        alpha: (h, w) opacity.
        top: row of the window's first pixel, may be negative.
        left: column of the window's first pixel, may be negative.
    """
    window, opacity = clip_window(canvas, alpha, top, left)
    window += opacity[..., None] * (colour - window)


def clip_window(
    canvas: NDArray[Any], alpha: NDArray[np.float32], top: int, left: int
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """The parts of ``canvas`` (a view) and ``alpha`` that lie on each other."""
    y0, x0 = max(0, top), max(0, left)
    y1 = max(y0, min(canvas.shape[0], top + alpha.shape[0]))
    x1 = max(x0, min(canvas.shape[1], left + alpha.shape[1]))
    return canvas[y0:y1, x0:x1], alpha[y0 - top : y1 - top, x0 - left : x1 - left]


def finish(rng: np.random.Generator, canvas: Canvas, noise: Range) -> NDArray[np.uint8]:
    """Adds sensor noise and rounds.

    Args:
        noise: standard deviation in grey levels.

    Returns:
        uint8 of the canvas's shape.
    """
    sigma = uniform(rng, noise)
    noisy = rng.standard_normal(canvas.shape, dtype=np.float32)
    noisy *= sigma
    noisy += canvas
    noisy += 0.5  # so that the conversion, which cuts off, rounds
    return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)
