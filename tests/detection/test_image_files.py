"""Every stage reads an image alike; Pillow and torchvision say what its pixels are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import Image, ImageOps, PngImagePlugin
from torchvision.datasets.folder import default_loader

from backbones import UserError
from detection.data.checks import load_records
from detection.data.image_files import load_image, read_image
from detection.data.mapper import CheckedDatasetMapper
from tests.made_images import RAMP, exif, half, photo, text_bomb, write


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif", "ppm", "gif"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr"])
def test_ordinary_images_are_as_torchvision_and_detectron2_read_them(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    path = str(tmp_path / f"image.{suffix}")
    try:
        Image.fromarray(photo()).convert(mode).save(path)
    except (OSError, ValueError):
        pytest.skip(f"{suffix} files have no mode {mode}")
    expected = np.asarray(default_loader(path))
    assert np.array_equal(read_image(path), expected)
    for layout in ("RGB", "BGR", "L", "YUV-BT.601"):
        theirs = detectron2_read_image(path, layout)
        ours = read_image(path, layout)
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        if layout != "L" or mode in ("RGB", "L"):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(("suffix", "width"), [("jpg", 40), ("png", 40), ("webp", 40), ("tif", 30)])
def test_images_are_upright(tmp_path: Path, turn: int, suffix: str, width: int) -> None:
    """A square one too, where only the pixels tell."""
    path = str(tmp_path / f"image.{suffix}")
    Image.fromarray(photo(30, width)).save(path, exif=exif(turn))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(read_image(path), expected)
    assert expected.shape == ((width, 30, 3) if turn >= 5 else (30, width, 3))


def test_exif_that_says_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "image.jpg")
    for odd in (exif(9), exif(0), b"Exif\0\0broken"):
        Image.fromarray(photo()).save(path, exif=odd)
        assert np.array_equal(read_image(path), np.asarray(default_loader(path)))


def test_classifier_and_detector_see_the_same(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    path = str(tmp_path / "image.jpg")
    Image.fromarray(photo()).save(path, exif=exif(6))
    tiny_cfg.INPUT.MIN_SIZE_TEST = 0
    seen = CheckedDatasetMapper(tiny_cfg, False)({"file_name": path})["image"]
    assert np.array_equal(seen.permute(1, 2, 0).numpy(), np.asarray(load_image(path)))


@pytest.mark.parametrize("is_train", [True, False])
def test_the_mapper_is_detectron2s(tiny_cfg: CfgNode, is_train: bool) -> None:
    for record in load_records("tiny_train")[:4]:
        made = []
        for mapper in (CheckedDatasetMapper, DatasetMapper):
            np.random.seed(7)
            made.append(mapper(tiny_cfg, is_train)(record))
        ours, theirs = made
        assert ours.keys() == theirs.keys()
        assert ours["image"].equal(theirs["image"]) and ours["image"].dtype == theirs["image"].dtype
        assert (ours["height"], ours["width"]) == (theirs["height"], theirs["width"])
        if is_train:
            boxes = [instances["instances"].gt_boxes.tensor for instances in made]
            masks = [instances["instances"].gt_masks.tensor for instances in made]
            assert boxes[0].equal(boxes[1]) and masks[0].equal(masks[1])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    """As the PNG specification says (13.12), which undoes how 8 bits become 16."""
    path = str(tmp_path / f"image.{suffix}")
    Image.fromarray(RAMP.astype(np.uint16)).save(path)
    expected = np.floor(RAMP.astype(np.uint16) / 65535 * 255 + 0.5).astype(np.uint8)
    assert np.array_equal(read_image(path), np.repeat(expected[..., None], 3, axis=2))
    grey = photo(channels=1)
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    assert np.array_equal(read_image(path)[..., 0], grey)


def test_a_negative_of_16_bits(tmp_path: Path) -> None:
    """In a TIFF, 0 can be white; Pillow knows that of 8 bits alone."""
    grey = photo(channels=1)
    path = str(tmp_path / "image.tif")
    Image.fromarray(grey.astype(np.uint16) * 257).save(path, tiffinfo={262: 0})
    assert np.array_equal(read_image(path)[..., 0], 255 - grey)


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (RAMP.astype(np.int32), "32-bit or signed"),
        ((RAMP / 65535).astype(np.float32), "floating point"),
        (RAMP.astype(np.float32) * np.nan, "floating point"),
    ],
)
def test_values_without_a_white(tmp_path: Path, pixels: np.ndarray, kind: str) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(pixels).save(path)
    with pytest.raises(UserError, match=f"image.tif' has {kind} values; .* convert it to 8 bits"):
        load_image(str(path))


def test_12_bits_in_16_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detection.data.image_files._dark", [])
    Image.fromarray((RAMP / 16).astype(np.uint16)).save(tmp_path / "image.png")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            load_image(str(tmp_path / "image.png"))
    (record,) = caplog.records
    assert "image.png' has 16 bits, but no value above 4095" in record.getMessage()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_what_is_transparent_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    """Black letters whose background is transparent black, as logos have it."""
    alpha = np.zeros((20, 30), np.uint8)
    alpha[5:15, 5:15] = 255
    image = Image.merge("RGBA", [Image.new("L", (30, 20))] * 3 + [Image.fromarray(alpha)])
    path = tmp_path / ("image.tif" if mode == "PA" else "image.png")
    if mode == "P":
        indexed = Image.fromarray((alpha > 0).astype(np.uint8))
        indexed = Image.frombytes("P", indexed.size, indexed.tobytes())
        indexed.putpalette([0, 0, 0, 0, 0, 0])
        indexed.save(path, transparency=b"\0\xff")
    elif mode == "PA":
        image.convert("PA").save(path)
    else:
        image.convert(mode).save(path)
    expected = np.repeat(255 - alpha[..., None], 3, axis=2)
    assert np.array_equal(read_image(str(path)), expected)


def test_opaque_images_with_alpha_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "image.png")
    Image.fromarray(np.dstack([photo(), np.full((30, 40), 255, np.uint8)])).save(path)
    assert np.array_equal(read_image(path), np.asarray(default_loader(path)))


def test_much_text_and_a_large_profile_are_no_fault(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "y" * 2_000_000, zip=True)
    info.add_itxt("Workflow", "y" * 2_000_000, zip=True)
    path = str(tmp_path / "image.png")
    Image.fromarray(photo()).save(path, pnginfo=info, icc_profile=bytes(2_000_000))
    assert np.array_equal(read_image(path), photo())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (write(b""), r"it is truncated or not an image"),
        (write(b"text"), r"it is truncated or not an image"),
        (
            write(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
            "of no format that is",
        ),
        (half, r"\(.*truncated.*\); it is truncated or not an image: copy it again"),
        (text_bomb, r"\(Decompressed data too large.*"),
        (lambda path: Image.new("1", (20_000, 20_000)).save(path), "make it smaller, or cut it"),
        (Path.mkdir, r"cannot read the image '.*' \(.*Is a directory"),
        (lambda path: None, "no image '.*'; check the image folder"),
    ],
)
def test_images_that_cannot_be_read(
    tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    path = tmp_path / "image.png"
    spoil(path)
    with pytest.raises(UserError, match=message) as caught:
        load_image(str(path))
    assert "image.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_annotations_are_not_blamed_for_images(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    """Nor for a map of classes that is no image."""
    mapper = CheckedDatasetMapper(tiny_cfg, is_train=True)
    image = tmp_path / "image.png"
    Image.fromarray(photo()).save(image)
    (tmp_path / "classes.png").write_bytes(b"text")
    record: dict[str, Any] = {"file_name": str(image), "annotations": [{"bbox": [1, 2, 3, 4]}]}
    with pytest.raises(UserError, match=r"cannot read the map of classes '.*classes.png'"):
        mapper({**record, "sem_seg_file_name": str(tmp_path / "classes.png")})
    text_bomb(image)
    with pytest.raises(UserError, match=r"cannot read the image '.*image.png'"):
        mapper(record)
