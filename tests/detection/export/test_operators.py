"""The operations in NumPy against Pillow, torchvision and Detectron2."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.layers import paste_masks_in_image
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.structures import Boxes
from PIL import Image
from torchvision.ops import batched_nms, roi_align

from detection.export.postprocess import operators


def boxes(count: int, largest: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.random((count, 2)) * largest - largest / 8
    return np.concatenate([corners, corners + rng.random((count, 2)) * largest], 1).astype("f4")


@pytest.mark.parametrize("size", [(61, 97), (30, 40), (122, 200), (61, 50), (7, 97), (64, 33)])
def test_resizing_is_pillows_to_the_bit(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    assert np.array_equal(operators.resize(image, *size), np.asarray(expected))


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (100, 1000), (37, 37), (1, 900)])
def test_sizes_are_detectron2s(size: tuple[int, int]) -> None:
    expected = T.ResizeShortestEdge.get_output_shape(*size, 176, 256)
    assert operators.resized_size(size, 176, 256) == tuple(max(side, 1) for side in expected)
    assert operators.resized_size(size, 0, 256) == size


def test_an_image_fits_its_canvas() -> None:
    assert operators.resized_size((480, 640), 176, 256, (192, 256)) == (176, 235)
    assert operators.resized_size((640, 480), 176, 256, (192, 256)) == (192, 144)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_is_torchvisions(aligned: bool, sampling_ratio: int) -> None:
    features = torch.randn(1, 5, 20, 26)
    rois = np.concatenate(
        [boxes(20, 90), np.array([[5, 5, 5, 5], [150, 150, 180, 190], [-40, -9, -30, 20]], "f4")]
    )
    expected = roi_align(features, [torch.from_numpy(rois)], 7, 0.25, sampling_ratio, aligned)
    found = [
        operators.roi_align(features[0].numpy(), box, 7, 0.25, sampling_ratio, aligned)
        for box in rois
    ]
    np.testing.assert_allclose(np.stack(found), expected.numpy(), atol=1e-5)


def test_levels_are_detectron2s() -> None:
    found = np.concatenate([boxes(200, 900), np.zeros((1, 4), "f4")])
    expected = assign_boxes_to_levels([Boxes(torch.from_numpy(found))], 2, 5, 224, 4)
    assert operators.levels_of(found, 2, 5, 224, 4).tolist() == expected.tolist()


def test_suppression_is_torchvisions() -> None:
    rng = np.random.default_rng(1)
    found, scores, groups = boxes(500, 60), rng.random(500).astype("f4"), rng.integers(0, 3, 500)
    expected = batched_nms(*map(torch.from_numpy, (found, scores, groups)), 0.5)
    kept = operators.non_maximum_suppression(found, scores, groups, 0.5)
    assert 3 < len(kept) < 500
    assert kept.tolist() == expected.tolist()
    for most in (0, 3, len(kept), 500):
        first = operators.non_maximum_suppression(found, scores, groups, 0.5, most)
        assert first.tolist() == expected.tolist()[:most]


def test_suppression_of_equal_scores_is_torchvisions() -> None:
    found, scores, groups = boxes(50, 20), np.ones(50, "f4"), np.zeros(50, int)
    expected = batched_nms(*map(torch.from_numpy, (found, scores, groups)), 0.3)
    kept = operators.non_maximum_suppression(found, scores, groups, 0.3)
    assert 1 < len(kept) < 50
    assert kept.tolist() == expected.tolist()


def test_empty_boxes_suppress_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = operators.non_maximum_suppression(
            np.zeros((2, 4), "f4"), np.ones(2, "f4"), np.zeros(2, int), 0.5
        )
    assert kept.tolist() == [0, 1]
    none = operators.non_maximum_suppression(
        np.zeros((0, 4), "f4"), np.zeros(0, "f4"), np.zeros(0, int), 0.5
    )
    assert none.tolist() == []


def test_decoding_is_detectron2s() -> None:
    weights, deltas = (10.0, 10.0, 5.0, 5.0), 8 * torch.randn(30, 12)
    transform = Box2BoxTransform(weights)
    given = boxes(30, 80)
    expected = transform.apply_deltas(deltas, torch.from_numpy(given))
    found = operators.decode(given, deltas.numpy(), weights, transform.scale_clamp)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-3)


def test_masks_are_pasted_as_detectron2_does() -> None:
    masks = np.random.default_rng(2).random((20, 28, 28)).astype("f4")
    places = operators.clip(boxes(20, 80), (70, 90))
    places = places[(places[:, 2:] > places[:, :2]).all(1)]
    masks = masks[: len(places)]
    expected = paste_masks_in_image(
        torch.from_numpy(masks), torch.from_numpy(places), (70, 90), 0.5
    ).numpy()
    assert expected.any()
    # a probability that rounds to the threshold may fall on either side
    assert (operators.paste(masks, places, (70, 90), 0.5) != expected).mean() < 1e-4
    assert operators.paste(masks[:0], places[:0], (70, 90), 0.5).shape == (0, 70, 90)


def test_probabilities() -> None:
    logits = np.array([[-1000.0, 0.0, 1000.0], [1.0, 2.0, -3.0]], "f4")
    tensor = torch.from_numpy(logits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(operators.sigmoid(logits), tensor.sigmoid(), atol=1e-6)
        np.testing.assert_allclose(operators.softmax(logits), tensor.softmax(-1), atol=1e-6)
