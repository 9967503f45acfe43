"""What the header and the end of an image file tell, without decoding its pixels."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from PIL import Image, UnidentifiedImageError

from backbones.errors import UserError
from detection.data.image_files import (
    has_alpha,
    is_deep,
    load_image,
    open_lazily,
    orientation,
    tiff_tag,
    white_value,
)

_TAIL = 65536  # bytes at a file's end; cameras append to JPEG files after their end marker
_JPEG_END, _JPEG_SCAN = b"\xff\xd9", 0xDA
_WIDTH, _HEIGHT, _BITS = 256, 257, 258
_DATA_OFFSETS, _DATA_LENGTHS = (273, 324), (279, 325)

_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer: run git lfs pull"),
    (b"<!DOCTYPE", "a web page: download it again"),
    (b"<html", "a web page: download it again"),
    (b"<?xml", "an XML file"),
    (b"<svg", "an SVG drawing"),
    (b"II*\0", "a TIFF file of a kind of values or a compression that it does not read"),
    (b"MM\0*", "a TIFF file of a kind of values or a compression that it does not read"),
    (b"%PDF", "a PDF file"),
    (b"%!PS", "a PostScript drawing"),
    (b"\x00\x05\x16\x07", "what macOS keeps beside files on foreign disks"),
)


@dataclass(frozen=True)
class Header:
    """One image file.

    Attributes:
        path: of the file.
        problem: why it cannot be used, as a kind of fault; empty if nothing speaks against it.
        reason: of the problem, about this file.
        stored: width and height as the pixels lie in the file.
        turned: the EXIF orientation, 1 to 8.
        deep: whether it has more than 8 bits a channel.
        scalable: whether it says which value is white.
        alpha: whether pixels can be transparent.
        frames: whether it has several frames or pages.
        suspect: whether its end looks as if bytes were missing, which decoding would tell.
    """

    path: str
    problem: str = ""
    reason: str = ""
    stored: tuple[int, int] = (0, 0)
    turned: int = 1
    deep: bool = False
    scalable: bool = True
    alpha: bool = False
    frames: bool = False
    suspect: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as the image is read: upright."""
        return self.stored[::-1] if self.turned >= 5 else self.stored


MISSING = "images that are not there"
EMPTY = "image files of 0 bytes"
UNREADABLE = "image files that cannot be opened"
UNKNOWN = "files that Pillow does not know as images"
HUGE = "images of more pixels than Pillow decodes"
BROKEN = "image files that are truncated or broken"


def read_header(path: str) -> Header:
    """Reads the beginning and the end of an image file. Pillow's warnings are the caller's."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return Header(path, MISSING, "no file")
        if not status.st_size:
            return Header(path, EMPTY)
        with open(path, "rb") as file:
            return _opened(path, file, status.st_size)
    except (FileNotFoundError, NotADirectoryError):
        return Header(path, MISSING)
    except OSError as error:
        return Header(path, UNREADABLE, error.strerror or str(error))


def check_decodes(header: Header) -> Header:
    """The header, with a problem if the file cannot be decoded."""
    try:
        load_image(header.path)
    except UserError as error:
        reason = str(error).partition("' (")[2].partition("); ")[0]
        return Header(header.path, BROKEN, reason)
    return header


def _opened(path: str, file: IO[bytes], length: int) -> Header:
    try:
        with open_lazily(file) as image:
            ending = _ENDINGS.get(image.format or "")
            whole = ending is None or ending(file, length, image)
            if whole is None:  # what turns it may lie behind the pixels
                image.load()
            deep = is_deep(image.mode)  # of grey alone: Pillow reads colours as 8 bits
            stored = image.size
            if image.format == "TIFF":  # Pillow's size is that of the image turned
                stored = tiff_tag(image, _WIDTH), tiff_tag(image, _HEIGHT)
            return Header(
                path,
                stored=stored,
                turned=orientation(image),
                deep=deep or _bits(file, image) == 16,
                scalable=not deep or white_value(image) is not None,
                alpha=has_alpha(image) and not deep,
                # The second picture of a phone's MPO file is a depth map or a preview.
                frames=image.format != "MPO" and getattr(image, "is_animated", False),
                suspect=whole is False,
            )
    except UnidentifiedImageError:
        return Header(path, UNKNOWN, _what_it_is(file))
    except Image.DecompressionBombError as error:
        return Header(path, HUGE, str(error).partition(",")[0])
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return Header(path, BROKEN, " ".join(str(error).split()) or type(error).__name__)


def _bits(file: IO[bytes], image: Image.Image) -> int | None:
    """Bits of a channel in the file, as far as a mode of Pillow's hides them."""
    if image.format == "TIFF":
        bits = tiff_tag(image, _BITS)
        return int(bits) if bits else None
    if image.format != "PNG":
        return None
    file.seek(24)
    return file.read(1)[0]


def _what_it_is(file: IO[bytes]) -> str:
    file.seek(0)
    start = file.read(64)
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        return "HEIC: convert it to JPEG"
    for beginning, name in _BEGINNINGS:
        if start.lstrip().lower().startswith(beginning.lower()):
            return name
    return ""


def _jpeg_ends(file: IO[bytes], length: int, image: Image.Image) -> bool:
    """Whether the end marker is there, behind the pixels' beginning: previews have one too."""
    file.seek(-2, os.SEEK_END)
    if file.read() == _JPEG_END:
        return True
    begin = max(_jpeg_pixels(file, length), length - _TAIL)
    file.seek(begin)
    return _JPEG_END in file.read()


def _jpeg_pixels(file: IO[bytes], length: int) -> int:
    """Where the first scan of a JPEG file begins."""
    position = 2
    while position + 4 <= length:
        file.seek(position)
        filler, kind, size = struct.unpack(">BBH", file.read(4))
        if filler != 0xFF or kind == _JPEG_SCAN:
            break
        position += 1 if kind == 0xFF else 2 + size
    return position


def _png_ends(file: IO[bytes], length: int, image: Image.Image) -> bool | None:
    """Whether its chunks are all there; None if a late one may turn the image."""
    position, data_seen, late = 8, False, False
    while position + 12 <= length:
        file.seek(position)
        size, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"IEND":
            return None if late else True
        late = late or (data_seen and kind in (b"eXIf", b"iTXt"))
        data_seen = data_seen or kind == b"IDAT"
        position += 12 + size
    return False


def _webp_ends(file: IO[bytes], length: int, image: Image.Image) -> bool:
    file.seek(4)
    return int.from_bytes(file.read(4), "little") + 8 <= length


def _tiff_ends(file: IO[bytes], length: int, image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", {})
    for offsets, lengths in zip(_DATA_OFFSETS, _DATA_LENGTHS, strict=True):
        pairs = zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
        if any(offset + size > length for offset, size in pairs):
            return False
    return True


def _gif_ends(file: IO[bytes], length: int, image: Image.Image) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read() == b";"


def _bmp_ends(file: IO[bytes], length: int, image: Image.Image) -> bool:
    file.seek(2)
    return int.from_bytes(file.read(4), "little") <= length


_ENDINGS: dict[str, Callable[[IO[bytes], int, Image.Image], bool | None]] = {
    "JPEG": _jpeg_ends,
    "MPO": _jpeg_ends,
    "PNG": _png_ends,
    "WEBP": _webp_ends,
    "TIFF": _tiff_ends,
    "GIF": _gif_ends,
    "BMP": _bmp_ends,
}
"""Whether a file of the format ends as it should; False is a suspicion, since writers differ."""
