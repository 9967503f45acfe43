"""Images made for tests, sound ones and broken ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

RAMP = np.linspace(0, 65535, 60 * 80).reshape(60, 80)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"


def photo(height: int = 30, width: int = 40, channels: int = 3) -> np.ndarray:
    """(H, W, channels) of noise; (H, W) for one channel."""
    shape = (height, width, channels)[: 3 if channels > 1 else 2]
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def exif(orientation: int) -> Image.Exif:
    """EXIF of the orientation alone."""
    made = Image.Exif()
    made[274] = orientation
    return made


def write(data: bytes) -> Callable[[Path], Any]:
    """What writes the bytes to a path."""
    return lambda path: path.write_bytes(data)


def text_bomb(path: Path) -> None:
    """A PNG file of more text than Pillow allows a file."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "y" * 70_000_000, zip=True)
    Image.fromarray(photo()).save(path, "PNG", pnginfo=info)


def half(path: Path) -> None:
    """The beginning of an image file."""
    Image.fromarray(photo()).save(path)
    path.write_bytes(path.read_bytes()[:1000])


def spoil_pixels(path: Path) -> bytes:
    """Overwrites the beginning of the compressed pixels, which no header gives away.

    Returns:
        What the file held before.
    """
    whole = path.read_bytes()
    file = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(file, "PNG")
    data = bytearray(file.getvalue())
    begin = data.index(b"IDAT") + 4
    data[begin : begin + 8] = bytes(8)
    path.write_bytes(data)
    return whole
