"""Images that no header gives away: their beginning and their end are as they should be."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def spoil_pixels(path: Path) -> bytes:
    """Overwrites the middle of the compressed pixels; returns what the file held before."""
    whole = path.read_bytes()
    file = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(file, "PNG")
    data = bytearray(file.getvalue())
    middle = (data.index(b"IDAT") + data.rindex(b"IEND")) // 2
    data[middle : middle + 8] = bytes(8)
    path.write_bytes(data)
    return whole
