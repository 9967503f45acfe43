"""Operations on images, boxes and masks in NumPy, as Pillow, torchvision and Detectron2 do them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def resized_size(
    size: Sequence[int], shortest: int, longest: int, canvas: Sequence[int] | None = None
) -> tuple[int, int]:
    """Height and width by a rule of ``prepare``, as Detectron2's ``ResizeShortestEdge``."""
    height: float
    width: float
    height, width = size
    if shortest:
        scale = shortest / min(size)
        height, width = (shortest if side == min(size) else scale * side for side in size)
        if max(height, width) > longest:
            scale = longest / max(height, width)
            height, width = height * scale, width * scale
        height, width = int(height + 0.5), int(width + 0.5)
    if canvas and (height > canvas[0] or width > canvas[1]):
        scale = min(canvas[0] / height, canvas[1] / width)
        height, width = int(height * scale + 0.5), int(width * scale + 0.5)
    return max(int(height), 1), max(int(width), 1)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (H, W, C) of uint8 in another size, to the bit as Pillow's bilinear filter."""
    pixels = image.astype(np.float64)
    if width != image.shape[1]:
        pixels = np.einsum("xw,hwc->hxc", _filter(image.shape[1], width), pixels, optimize=True)
        pixels = np.clip(np.floor(pixels + 0.5), 0, 255)
    if height != image.shape[0]:
        pixels = np.einsum("yh,hwc->ywc", _filter(image.shape[0], height), pixels, optimize=True)
        pixels = np.clip(np.floor(pixels + 0.5), 0, 255)
    return pixels.astype(np.uint8)


def _filter(old: int, new: int) -> np.ndarray:
    """(new, old) weights of a triangle as wide as a new pixel, in Pillow's 22 bits."""
    scale = old / new
    wide = max(scale, 1.0)
    centres = (np.arange(new)[:, None] + 0.5) * scale
    first = np.maximum(np.floor(centres - wide + 0.5), 0)
    last = np.minimum(np.floor(centres + wide + 0.5), old)
    places = np.arange(old)[None]
    weights = np.maximum(1 - np.abs((places - centres + 0.5) / wide), 0)
    weights *= (places >= first) & (places < last)
    weights /= weights.sum(1, keepdims=True)
    rounded: np.ndarray = np.floor(weights * 2**22 + 0.5) / 2**22
    return rounded


def decode(
    boxes: np.ndarray, deltas: np.ndarray, weights: Sequence[float], scale_clamp: float
) -> np.ndarray:
    """Boxes (N, 4·K) by deltas (N, 4·K) from boxes (N, 4): R-CNN's transform (arXiv 1311.2524)."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + np.float32(0.5) * sizes
    parts = deltas.reshape(len(boxes), deltas.shape[1] // 4, 4) / np.asarray(weights, np.float32)
    moved = centres[:, None] + parts[..., :2] * sizes[:, None]
    scaled = np.exp(np.minimum(parts[..., 2:], np.float32(scale_clamp))) * sizes[:, None]
    half = np.float32(0.5) * scaled
    return np.concatenate([moved - half, moved + half], -1).reshape(deltas.shape)


def clip(boxes: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Boxes (N, 4) within an image of a height and width."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def non_maximum_suppression(
    boxes: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    threshold: float,
    most: int | None = None,
) -> np.ndarray:
    """Indices of the boxes that stay, the best first.

    Args:
        boxes: (N, 4).
        scores: (N,).
        groups: (N,): a box goes where a better one of its group overlaps it.
        threshold: IoU above which it does.
        most: boxes that are wanted; None wants all.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, groups = boxes[order], groups[order]
    worse = {group: np.flatnonzero(groups == group) for group in np.unique(groups)}
    stays = np.ones(len(order), bool)
    kept: list[int] = []
    for index, group in enumerate(groups):
        if len(kept) == most:
            break
        if stays[index]:
            kept.append(index)
            others = worse[group]
            others = worse[group] = others[stays[others] & (others > index)]
            # of two empty boxes it is 0 / 0, which is above nothing
            stays[others[iou(boxes[index], boxes[others]) > threshold]] = False
    found: np.ndarray = order[kept]
    return found


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union (N,) of a box (4,) with others (N, 4); NaN between empty ones."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.maximum(sides, 0).prod(1)
    with np.errstate(invalid="ignore"):
        share: np.ndarray = shared / (_areas(box[None]) + _areas(others) - shared)
    return share


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def levels_of(
    boxes: np.ndarray, lowest: int, highest: int, canonical_size: float, canonical_level: int
) -> np.ndarray:
    """Pyramid level (N,) of every box, from 0: eq. 1 of arXiv 1612.03144."""
    sides = np.sqrt(_areas(boxes)) / np.float32(canonical_size)
    level = np.floor(canonical_level + np.log2(sides + np.float32(1e-8)))
    return np.clip(level, lowest, highest).astype(int) - lowest


def roi_align(
    map: np.ndarray, box: np.ndarray, bins: int, scale: float, sampling_ratio: int, aligned: bool
) -> np.ndarray:
    """RoIAlign of one box (arXiv 1703.06870), which is linear in rows and in columns.

    Args:
        map: (C, H, W).
        box: (4,) in pixels of the image.
        bins: rows and columns of the result.
        scale: of the map to the image.
        sampling_ratio: samples a bin and axis; 0 takes one a cell.
        aligned: half a pixel is taken off, as in Detectron2's ROIAlignV2.

    Returns:
        (C, bins, bins).
    """
    left, top, right, bottom = box * np.float32(scale) - np.float32(0.5 if aligned else 0)
    rows, first_row = _samples(top, bottom, bins, map.shape[1], sampling_ratio, aligned)
    columns, first = _samples(left, right, bins, map.shape[2], sampling_ratio, aligned)
    part = map[:, first_row : first_row + rows.shape[1], first : first + columns.shape[1]]
    pooled: np.ndarray = rows @ part @ columns.T
    return pooled


def _samples(
    start: np.float32, end: np.float32, bins: int, length: int, sampling_ratio: int, aligned: bool
) -> tuple[np.ndarray, int]:
    """Weights (bins, cells) of the cells of one axis, and the first of the cells."""
    extent = end - start if aligned else np.maximum(end - start, np.float32(1))
    step = extent / np.float32(bins)
    count = sampling_ratio or int(np.ceil(step))
    if count < 1:
        return np.zeros((bins, 1), np.float32), 0
    within = (np.arange(count, dtype=np.float32) + np.float32(0.5)) * step / np.float32(count)
    places = (start + np.arange(bins, dtype=np.float32)[:, None] * step + within).reshape(-1)
    inside = (places >= -1) & (places <= length)
    places = np.clip(places, 0, length - 1)
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, length - 1)
    first = int(low.min())
    weights = np.zeros((bins, int(high.max()) + 1 - first), np.float32)
    row = np.repeat(np.arange(bins), count)
    np.add.at(weights, (row, low - first), (1 - (places - low)) * inside)
    np.add.at(weights, (row, high - first), (places - low) * inside)
    return weights / np.float32(count), first


def paste(
    masks: np.ndarray, boxes: np.ndarray, size: Sequence[int], threshold: float
) -> np.ndarray:
    """Masks of boxes as masks of the image, by bilinear interpolation.

    Args:
        masks: (N, M, M) probabilities.
        boxes: (N, 4) in pixels of the image.
        size: height and width of the image.
        threshold: probability from which a pixel belongs to the object.

    Returns:
        (N, height, width) bool.
    """
    pasted = np.zeros((len(boxes), *size), bool)
    for whole, mask, (left, top, right, bottom) in zip(pasted, masks, boxes, strict=True):
        rows, first_row = _stretch(top, bottom, mask.shape[0], size[0])
        columns, first = _stretch(left, right, mask.shape[1], size[1])
        found = rows @ mask @ columns.T >= threshold
        whole[first_row : first_row + len(rows), first : first + len(columns)] = found
    return pasted


def _stretch(start: float, end: float, cells: int, length: int) -> tuple[np.ndarray, int]:
    """Weights (pixels, cells) of a mask's cells for pixels of one axis, and the first pixel."""
    first, last = max(int(np.floor(start)) - 1, 0), min(int(np.ceil(end)) + 1, length)
    pixels = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    places = (pixels - start) / (end - start) * np.float32(cells) - np.float32(0.5)
    distance = np.abs(places[:, None] - np.arange(cells, dtype=np.float32))
    weights: np.ndarray = np.maximum(1 - distance, 0).astype(np.float32)
    return weights, first


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, small) / (1 + small)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return shares
