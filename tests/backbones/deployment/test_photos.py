"""A photo becomes the input that training and evaluation give a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data.transforms import ResizeShortestEdge
from PIL import Image
from timm.data import create_transform

from backbones.architecture import IMAGENET
from backbones.deployment.contract import Preprocessing, Resizing
from backbones.deployment.photos import network_input, pixels

RGB = Preprocessing(
    mean=tuple(255 * value for value in IMAGENET.mean),
    std=tuple(255 * value for value in IMAGENET.std),
)


def photo(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


@pytest.mark.parametrize("size", [(70, 50), (50, 71), (40, 40), (201, 37)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_a_classifier_sees_what_timm_gives_it(size: tuple[int, int], crop_pct: float) -> None:
    resizing = Resizing("centre_crop", 48, crop_pct, interpolation="bicubic")
    given = Preprocessing(mean=RGB.mean, std=RGB.std, resizing=resizing)
    transform = create_transform(48, crop_pct=crop_pct, interpolation="bicubic")
    expected = transform(photo(*size))
    assert isinstance(expected, torch.Tensor)
    found = network_input(photo(*size), given)
    np.testing.assert_allclose(found[0], expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(70, 50), (50, 71), (400, 37)])
def test_a_pyramid_sees_what_detectron2_gives_it(size: tuple[int, int]) -> None:
    resizing = Resizing("shorter_side", 60, max_size=100, interpolation="bilinear", divisor=32)
    given = Preprocessing("BGR", mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), resizing=resizing)
    image = np.asarray(photo(*size))[:, :, ::-1]
    resized = ResizeShortestEdge(60, 100).get_transform(image).apply_image(image.copy())
    expected = (resized - np.array([1.0, 2.0, 3.0])) / np.array([4.0, 5.0, 6.0])
    found = network_input(photo(*size), given)
    height, width = expected.shape[:2]
    assert found.shape[2:] == (-(-height // 32) * 32, -(-width // 32) * 32)
    np.testing.assert_allclose(found[0, :, :height, :width], expected.transpose(2, 0, 1), rtol=1e-5)
    assert not found[0, :, height:].any()
    assert not found[0, :, :, width:].any()


def test_a_fixed_size_and_pixels_as_they_are() -> None:
    assert pixels(photo(70, 50), Preprocessing()).shape == (1, 3, 50, 70)
    found = network_input(photo(70, 50), Preprocessing(), (64, 96))
    assert found.shape == (1, 3, 64, 96)
    assert found.dtype == np.float32
    assert found.max() > 100
