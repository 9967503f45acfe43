"""Renders digits: scenes with exact instance masks, and single digits for classification.

`SceneConfig` and `DigitImageConfig` hold everything that makes the two tasks easy or hard.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detection.data import canvas as cv
from detection.data.canvas import Canvas, Range

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SceneConfig:
    """How hard the detection scenes are.

    Attributes:
        sizes: (height, width) in pixels; every scene draws one.
        count: fewest and most digits tried in a scene; one without room is dropped.
        small: height range in pixels of the digits that become COCO's small objects.
        medium: the same for medium objects.
        large: the same for large objects. A digit's strokes cover a third of its box, so a mask
            above 96 x 96 pixels needs a height of about 190.
        shares: probability of small, medium and large.
        rotation: largest rotation, degrees.
        threshold: intensity where a stroke's outline lies (see `canvas.digit_alpha`).
        edge: softness of the outline, pixels.
        contrast: of digits against what is below them (see `canvas.ink_colour`).
        clutter: fewest and most shapes that are no digits.
        clutter_contrast: of those shapes.
        dark: probability that a digit is darker than what is below it.
        ground: range of the background's mean colour, grey levels.
        texture: amplitude range of the background's texture, grey levels.
        noise: range of the standard deviation of the noise, grey levels.
        min_visible: smallest visible share of a digit; below it a later digit is placed anew.
        max_overlap: largest share of a new digit that may lie on earlier ones.
        attempts: placements tried before a digit is dropped.
    """

    sizes: tuple[tuple[int, int], ...] = ((320, 320), (288, 352), (352, 288))
    count: tuple[int, int] = (2, 8)
    small: Range = (26.0, 54.0)
    medium: Range = (64.0, 160.0)
    large: Range = (200.0, 265.0)
    shares: tuple[float, float, float] = (0.36, 0.36, 0.28)
    rotation: float = 12.0
    threshold: Range = (0.4, 0.5)
    edge: float = 2.0
    contrast: Range = (0.25, 0.7)
    dark: float = 0.0
    ground: Range = (25.0, 115.0)
    clutter: tuple[int, int] = (1, 6)
    clutter_contrast: Range = (0.06, 0.22)
    texture: Range = (4.0, 18.0)
    noise: Range = (2.0, 11.0)
    min_visible: float = 0.5
    max_overlap: float = 0.25
    attempts: int = 20


@dataclass(frozen=True)
class DigitImageConfig:
    """How hard the classification images are; fields as in `SceneConfig`.

    Attributes:
        side: pixels of the square image.
        height: height range of the digit, pixels.
        pieces: fewest and most other digits that reach into the image from its border.
    """

    side: int = 64
    height: Range = (40.0, 58.0)
    rotation: float = 12.0
    threshold: Range = (0.4, 0.5)
    edge: float = 2.0
    contrast: Range = (0.3, 0.8)
    dark: float = 0.0
    ground: Range = (25.0, 115.0)
    clutter: tuple[int, int] = (0, 2)
    clutter_contrast: Range = (0.06, 0.2)
    pieces: tuple[int, int] = (0, 1)
    texture: Range = (4.0, 20.0)
    noise: Range = (2.0, 12.0)


@dataclass(frozen=True, eq=False)
class Layer:
    """A placed digit.

    Attributes:
        index: position of the digit in the pool.
        label: 0..9.
        alpha: opacity (h, w) in 0..1.
        top: row of the window.
        left: column of the window.
        colour: (3,) in 0..255.
    """

    index: int
    label: int
    alpha: NDArray[np.float32]
    top: int
    left: int
    colour: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ScenePlan:
    """A scene before its digits are painted: later layers cover earlier ones.

    Attributes:
        background: float32 (H, W, 3), with the clutter.
        layers: in painting order.
    """

    background: Canvas
    layers: tuple[Layer, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """A finished scene.

    Attributes:
        image: uint8 (H, W, 3).
        masks: visible pixels of each digit, (H, W) bool; no two share a pixel.
        labels: 0..9, one per mask.
        digit_indices: positions in the pool, one per mask.
    """

    image: NDArray[np.uint8]
    masks: list[Mask]
    labels: list[int]
    digit_indices: list[int]


def render_scene(
    digits: NDArray[np.float32],
    labels: NDArray[np.int64],
    rng: np.random.Generator,
    config: SceneConfig,
) -> Scene:
    """Draws a scene of digits from a pool.

    Args:
        digits: (N, 8, 8) in 0..1, the pool.
        labels: (N,).
    """
    plan = plan_scene(digits, labels, rng, config)
    image = cv.finish(rng, paint_scene(plan), config.noise)
    return Scene(
        image=image,
        masks=visible_masks(plan),
        labels=[layer.label for layer in plan.layers],
        digit_indices=[layer.index for layer in plan.layers],
    )


def plan_scene(
    digits: NDArray[np.float32],
    labels: NDArray[np.int64],
    rng: np.random.Generator,
    config: SceneConfig,
) -> ScenePlan:
    """Chooses background, digits, places and colours; arguments as for `render_scene`."""
    height, width = config.sizes[int(rng.integers(len(config.sizes)))]
    ground = cv.background(
        rng,
        height,
        width,
        config.ground,
        config.texture,
        config.clutter,
        config.clutter_contrast,
    )
    painted = ground.copy()
    owner = np.full((height, width), -1, dtype=np.int16)  # the visible layer of each pixel
    areas: list[int] = []
    layers: list[Layer] = []
    for size in _draw_heights(rng, config):
        index = int(rng.integers(len(digits)))
        alpha = cv.digit_alpha(
            rng, digits[index], size, config.rotation, config.threshold, config.edge
        )
        place = _find_place(rng, alpha, owner, areas, config)
        if place is None:
            continue
        top, left = place
        body = alpha >= 0.5
        window = painted[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        colour = cv.ink_colour(rng, window[body].mean(axis=0), config.contrast, config.dark)
        cv.paint(painted, alpha, top, left, colour)
        owner[top : top + alpha.shape[0], left : left + alpha.shape[1]][body] = len(layers)
        areas.append(int(body.sum()))
        layers.append(Layer(index, int(labels[index]), alpha, top, left, colour))
    return ScenePlan(ground, tuple(layers))


def _draw_heights(rng: np.random.Generator, config: SceneConfig) -> list[float]:
    """Heights in pixels in painting order: large digits first, so that they hide no small one."""
    count = int(rng.integers(config.count[0], config.count[1] + 1))
    scales = rng.choice(3, size=count, p=config.shares)
    ranges = (config.small, config.medium, config.large)
    return sorted((cv.uniform(rng, ranges[int(scale)]) for scale in scales), reverse=True)


def _find_place(
    rng: np.random.Generator,
    alpha: NDArray[np.float32],
    owner: NDArray[np.int16],
    areas: list[int],
    config: SceneConfig,
) -> tuple[int, int] | None:
    """Row and column for a new digit inside the scene, or None if every attempt failed."""
    height, width = alpha.shape
    rows, columns = owner.shape[0] - height, owner.shape[1] - width
    body = alpha >= 0.5
    if rows < 0 or columns < 0 or not body.any():
        return None
    visible = np.bincount(owner[owner >= 0], minlength=len(areas))
    for _ in range(config.attempts):
        top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
        below = owner[top : top + height, left : left + width][body]
        hidden = np.bincount(below[below >= 0], minlength=len(areas))
        if hidden.sum() > config.max_overlap * below.size:
            continue
        remaining = visible - hidden
        if all(r >= config.min_visible * a for r, a in zip(remaining, areas, strict=True)):
            return top, left
    return None


def paint_scene(plan: ScenePlan) -> Canvas:
    """The scene's colours without noise, float32 (H, W, 3)."""
    canvas = plan.background.copy()
    for layer in plan.layers:
        cv.paint(canvas, layer.alpha, layer.top, layer.left, layer.colour)
    return canvas


def visible_masks(plan: ScenePlan) -> list[Mask]:
    """The pixels of each layer where its opacity is at least 0.5 and no later layer's is."""
    owner = np.full(plan.background.shape[:2], -1, dtype=np.int16)
    for number, layer in enumerate(plan.layers):
        window, alpha = cv.clip_window(owner, layer.alpha, layer.top, layer.left)
        window[alpha >= 0.5] = number
    return [owner == number for number in range(len(plan.layers))]


def without_layer(plan: ScenePlan, number: int) -> ScenePlan:
    """The same scene with one digit left out."""
    return replace(plan, layers=plan.layers[:number] + plan.layers[number + 1 :])


def render_digit_image(
    digits: NDArray[np.float32], index: int, rng: np.random.Generator, config: DigitImageConfig
) -> NDArray[np.uint8]:
    """Draws one digit of the pool on a cluttered background.

    Args:
        digits: (N, 8, 8) in 0..1, the pool; pieces of its other members are clutter.
        index: the digit that the image shows.

    Returns:
        uint8 (side, side, 3).
    """
    side = config.side
    canvas = cv.background(
        rng, side, side, config.ground, config.texture, config.clutter, config.clutter_contrast
    )
    for _ in range(int(rng.integers(config.pieces[0], config.pieces[1] + 1))):
        _paint_piece(digits[int(rng.integers(len(digits)))], rng, canvas, config)
    height = cv.uniform(rng, config.height)
    alpha = cv.digit_alpha(
        rng, digits[index], height, config.rotation, config.threshold, config.edge
    )
    top = int(rng.integers(max(0, side - alpha.shape[0]) + 1))
    left = int(rng.integers(max(0, side - alpha.shape[1]) + 1))
    window, opacity = cv.clip_window(canvas, alpha, top, left)
    under = window[opacity >= 0.5].mean(axis=0)
    cv.paint(canvas, alpha, top, left, cv.ink_colour(rng, under, config.contrast, config.dark))
    return cv.finish(rng, canvas, config.noise)


def _paint_piece(
    digit: NDArray[np.float32],
    rng: np.random.Generator,
    canvas: Canvas,
    config: DigitImageConfig,
) -> None:
    """Lets another digit reach into the image from a random border by about a third."""
    height = cv.uniform(rng, config.height)
    alpha = cv.digit_alpha(rng, digit, height, config.rotation, config.threshold, config.edge)
    rows, columns, side = *alpha.shape, config.side
    reach = cv.uniform(rng, (0.15, 0.4))
    along_y, along_x = int(rng.integers(side)) - rows // 2, int(rng.integers(side)) - columns // 2
    places = (
        (round(reach * rows) - rows, along_x),
        (side - round(reach * rows), along_x),
        (along_y, round(reach * columns) - columns),
        (along_y, side - round(reach * columns)),
    )
    top, left = places[int(rng.integers(4))]
    under = canvas.mean(axis=(0, 1))
    cv.paint(canvas, alpha, top, left, cv.ink_colour(rng, under, config.contrast, config.dark))
