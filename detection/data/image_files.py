"""The one reader of image files, for all stages: upright, RGB, 8 bits."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from backbones.errors import UserError
from detection.engine.unreadable import UnreadableImageError

_log = logging.getLogger(__name__)

# A photo editor's history or a prompt's workflow is no reason to refuse a picture. What Pillow
# allows for all texts of one file together bounds the memory; it allows one of them 1 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)

_ORIENTATION, _BITS, _PHOTOMETRIC = 274, 258, 262
_WHITE_IS_ZERO = 0

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

NEARLY_BLACK = 1 / 16
"""Share of the range below which a 16-bit image holds data of fewer bits, e.g. 12."""

DARK_ADVICE = "scale such images to 0 to 65535, or to 8 bits"
UNSCALED_ADVICE = (
    "the file does not say which value is white: convert it to 8 bits, or to 16 bits without sign"
)


def load_image(path: str) -> Image.Image:
    """An image file as RGB of 8 bits, turned as its EXIF orientation says.

    Ordinary images have the pixels that torchvision's loader gives them. 16-bit grey is scaled,
    65,535 to 255; what is transparent is laid on white; of several frames the first is taken.

    Args:
        path: a file, or an address that iopath knows.

    Raises:
        UnreadableImageError: naming the file, if it is missing, truncated, too large for Pillow,
            not an image, or one of 32-bit or floating point values.
        UserError: if the machine fails to read it.
    """
    return decode_image(path, lambda: PathManager.open(path, "rb"))


def decode_image(name: str, opened: Callable[[], IO[bytes]]) -> Image.Image:
    """As :func:`load_image`, from wherever the bytes are.

    Args:
        name: for messages.
        opened: opens them.
    """
    try:
        with warnings.catch_warnings(), opened() as file:
            # Of colours under transparency, of EXIF, of more than half the pixels allowed.
            warnings.simplefilter("ignore")
            return _upright(name, file)
    except FileNotFoundError:
        raise UnreadableImageError(f"no image '{name}'; check the image folder", name) from None
    except UserError:
        raise
    # Pillow's parsers raise whatever they stumble over: SyntaxError, struct.error, ValueError, …
    except Exception as error:
        text = f"cannot read the image '{name}' {_explained(error)}"
        raise (
            UserError(text) if _of_machine(error) else UnreadableImageError(text, name)
        ) from None


def read_image(path: str, layout: str = "RGB") -> np.ndarray:
    """The pixels of :func:`load_image`.

    Args:
        path: a file, or an address that iopath knows.
        layout: ``RGB``, or another of Detectron2's ``INPUT.FORMAT``.

    Returns:
        (H, W, 3) uint8; (H, W, 1) for ``L``; float for ``YUV-BT.601``.

    Raises:
        UnreadableImageError: as :func:`load_image`.
    """
    return np.asarray(convert_PIL_to_numpy(load_image(path), layout))


def open_lazily(file: IO[bytes]) -> Image.Image:
    """Opens an image without its pixels.

    Raises:
        UnidentifiedImageError: for a drawing that Pillow would run Ghostscript on, too.
    """
    image = Image.open(file)
    if image.format == "EPS":
        raise UnidentifiedImageError("PostScript")
    return image


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        # The method of the class: that of PNG files would decode the pixels.
        found = Image.Image.getexif(image).get(_ORIENTATION)
    except Exception:  # as Detectron2: EXIF that is broken says nothing
        return 1
    return found if found in _TURNS else 1


def white_value(image: Image.Image) -> int | None:
    """Which value is white, for an image of more than 8 bits; None if its file does not say.

    Pillow's mode ``I`` stands for 32 bits, and for the 16 bits of PGM and, before Pillow 11, PNG.
    """
    if image.mode.startswith("I;16"):
        return 4095 if tiff_tag(image, _BITS) == 12 else 65535
    return 65535 if image.mode == "I" and image.format in ("PNG", "PPM") else None


def is_deep(mode: str) -> bool:
    """Whether Pillow's mode has more than 8 bits a channel."""
    return mode in ("I", "F") or mode.startswith("I;")


def has_alpha(image: Image.Image) -> bool:
    """Whether pixels can be transparent."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def as_rgba(image: Image.Image) -> Image.Image:
    """The image in RGBA, whatever its file says of transparency."""
    # Pillow leads from grey with multiplied alpha to grey with alpha, and no further.
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _upright(path: str, file: IO[bytes]) -> Image.Image:
    with open_lazily(file) as image:
        # A TIFF is turned by Pillow as it is loaded, and says no more that it was to be turned.
        image.load()
        turn = _TURNS.get(orientation(image))
        rgb = _as_rgb(path, image)
    return rgb.transpose(turn) if turn is not None else rgb


def _as_rgb(path: str, image: Image.Image) -> Image.Image:
    if is_deep(image.mode):
        return Image.fromarray(_scaled(path, image)).convert("RGB")
    if has_alpha(image):
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, as_rgba(image)).convert("RGB")
    return image.convert("RGB")


def _scaled(path: str, image: Image.Image) -> np.ndarray:
    """(H, W) uint8, linearly as the PNG specification scales depths."""
    white = white_value(image)
    if white is None:
        kind = "floating point" if image.mode == "F" else "32-bit or signed"
        raise UnreadableImageError(f"the image '{path}' has {kind} values; {UNSCALED_ADVICE}", path)
    values = np.asarray(image).astype(np.int64)
    if tiff_tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = white - values
    elif 0 < values.max() < white * NEARLY_BLACK:
        _warn_of_dark(path, int(values.max()))
    return ((values * 255 + white // 2) // white).astype(np.uint8)


_dark: list[str] = []


def _warn_of_dark(path: str, largest: int) -> None:
    """Once per process: of the first such image."""
    if not _dark:
        _dark.append(path)
        _log.warning(
            "the image '%s' has 16 bits, but no value above %d, and is read as nearly black; %s",
            path,
            largest,
            DARK_ADVICE,
        )


def tiff_tag(image: Image.Image, tag: int) -> Any:
    """A TIFF's tag, the first value of several; None for other files."""
    value = getattr(image, "tag_v2", {}).get(tag)
    return value[0] if isinstance(value, tuple) and value else value


def _of_machine(error: Exception) -> bool:
    """Whether it is the machine's, and the file may be sound."""
    of_system = isinstance(error, OSError) and error.errno is not None
    return of_system or isinstance(error, MemoryError)


def _explained(error: Exception) -> str:
    """The reason in brackets, and the way out."""
    reason = f"({' '.join(str(error).split()) or type(error).__name__})"
    if isinstance(error, UnidentifiedImageError):  # Pillow's text is of the file object
        reason = "(of no format that is read)"
    if isinstance(error, Image.DecompressionBombError):
        return f"{reason}; make it smaller, or cut it into tiles"
    if _of_machine(error):
        return reason
    return f"{reason}; it is truncated or not an image: copy it again, replace or remove it"
