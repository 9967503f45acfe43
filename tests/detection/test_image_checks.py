"""What headers tell of image files is said before a run, each kind with count, example, way out."""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from backbones import UserError
from detection.data import image_checks
from detection.data.checks import image_files, load_records
from detection.data.findings import Finding
from detection.data.hidden import is_hidden
from detection.data.image_checks import check_before_run, check_image_files
from detection.data.image_headers import read_header
from tests.made_images import RAMP, exif, half, photo, text_bomb, write


def png(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels are not decoded."""

    def load(image: ImageFile.ImageFile) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_sizes_are_those_of_the_image_read(tmp_path: Path, turn: int, suffix: str) -> None:
    path = str(tmp_path / f"image.{suffix}")
    Image.fromarray(photo(30, 40)).save(path, exif=exif(turn))
    upright = (30, 40) if turn >= 5 else (40, 30)
    header = read_header(path)
    assert (header.problem, header.stored, header.turned) == ("", (40, 30), turn)
    assert header.size == upright
    kinds = [finding.kind for finding in check_image_files([path], [upright])]
    mirrored = "images that their EXIF orientation turns or mirrors without a change of size"
    assert kinds == ([mirrored] if turn in (2, 3, 4) else [])
    (wrong,) = check_image_files([path], [(41, 30)])[:1]
    assert (wrong.severity, wrong.kind) == (
        "error",
        "images of another size than listed in the annotation file",
    )
    assert wrong.example == f"'{path}' ({upright[0]} × {upright[1]}, listed as 41 × 30)"


def test_an_orientation_behind_the_pixels(tmp_path: Path) -> None:
    """PNG allows it there; Pillow reads it with the pixels."""
    data = png(photo(30, 40))
    end = data.rindex(b"IEND") - 4
    late = chunk(b"eXIf", exif(6).tobytes()[6:])
    (tmp_path / "image.png").write_bytes(data[:end] + late + data[end:])
    assert read_header(str(tmp_path / "image.png")).size == (30, 40)


def test_which_sizes_differ(tmp_path: Path) -> None:
    plain, turned, square = (str(tmp_path / f"{name}.jpg") for name in ("p", "t", "s"))
    Image.fromarray(photo(30, 40)).save(plain)
    Image.fromarray(photo(30, 40)).save(turned, exif=exif(6))
    Image.fromarray(photo(30, 30)).save(square, exif=exif(8))
    found = check_image_files(
        [plain, turned, square, plain, "s3://far/away.jpg"],
        [(30, 40), (40, 30), (30, 30), (40.0, 30.0), (1, 1)],  # type: ignore[list-item]
    )
    assert [(f.count, f.kind, f.severity) for f in found] == [
        (
            1,
            "images turned by their EXIF orientation, but listed with the size before the turn",
            "error",
        ),
        (1, "images listed with width and height swapped", "error"),
        (
            1,
            "images that their EXIF orientation turns or mirrors without a change of size",
            "oddity",
        ),
    ]
    assert (
        "swap width and height in the annotation file; if not, take the orient" in found[0].advice
    )
    assert check_image_files([plain, turned, square]) == []


def cut(suffix: str, pixels: np.ndarray | None = None) -> Callable[[Path], None]:
    """An image without its last part."""

    def spoil(path: Path) -> None:
        file = io.BytesIO()
        image = Image.fromarray(photo(120, 160) if pixels is None else pixels)
        image.save(file, {"tif": "TIFF", "jpg": "JPEG"}.get(suffix, suffix))
        path.write_bytes(file.getvalue()[: len(file.getvalue()) * 2 // 3])

    return spoil


def jpeg_with_preview(path: Path) -> None:
    """Cut in its pixels; the preview in its EXIF ends as a JPEG file does."""
    Image.fromarray(photo()).save(path, "JPEG", exif=b"Exif\0\0" + b"\xff\xd8 preview \xff\xd9")
    path.write_bytes(path.read_bytes()[:-300])


def save(pixels: np.ndarray, **options: Any) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path, "PNG", **options)


def tiff(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path, "TIFF")


def deep_colours(grey: np.ndarray) -> Callable[[Path], None]:
    """A PNG file of 16-bit RGB, which Pillow reads but does not write."""
    rows = np.repeat(grey.astype(">u2")[..., None], 3, axis=2)
    size = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    content = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return write(b"\x89PNG\r\n\x1a\n" + content)


def frames(path: Path) -> None:
    stack = [Image.fromarray(photo() // (n + 1)) for n in range(3)]
    stack[0].save(path, "TIFF", save_all=True, append_images=stack[1:])


def see_through(path: Path) -> None:
    Image.fromarray(np.dstack([photo(), photo(channels=1)])).save(path, "PNG")


BROKEN, UNKNOWN = (
    "image files that are truncated or broken",
    "files that Pillow does not know as images",
)
REASONS = {"pointer": "run git lfs pull", "page": "a web page", "heic": "HEIC: convert it"}
KINDS = {
    "gone": (os.remove, "images that are not there", "error"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "images that are not there", "error"),
    "empty": (write(b""), "image files of 0 bytes", "error"),
    "text": (write(b"a, b"), UNKNOWN, "error"),
    "pointer": (
        write(b"version https://git-lfs.github.com/spec/v1\n"),
        UNKNOWN,
        "error",
    ),
    "page": (write(b"\n<!doctype html><html>"), UNKNOWN, "error"),
    "heic": (write(b"\0\0\0\x18ftypheic" + bytes(50)), UNKNOWN, "error"),
    "postscript": (
        write(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "files that",
        "error",
    ),
    "bomb": (save(np.zeros((14_000, 14_000), bool)), "images of more pixels than Pil", "error"),
    "half": (half, BROKEN, "error"),
    "cut jpeg": (cut("jpg"), BROKEN, "error"),
    "cut jpeg with a preview": (jpeg_with_preview, BROKEN, "error"),
    "cut webp": (cut("webp"), BROKEN, "error"),
    "cut tiff": (cut("tif"), BROKEN, "error"),
    "cut bmp": (cut("bmp"), BROKEN, "error"),
    "cut gif": (cut("gif"), BROKEN, "error"),
    "cut png": (cut("png"), BROKEN, "error"),
    "text bomb": (text_bomb, BROKEN, "error"),
    "32 bit": (tiff(RAMP.astype(np.int32)), "images of 32-bit, signed or float", "error"),
    "float": (tiff(RAMP.astype(np.float32)), "images of 32-bit, signed or float", "error"),
    "12 bit": (
        save((RAMP / 16).astype(np.uint16)),
        "16-bit images that use only 6.25% of",
        "error",
    ),
    "12 bit colours": (deep_colours(RAMP / 16), "16-bit images that use only 5", "error"),
    "16 bit colours": (deep_colours(RAMP), "16-bit images", "oddity"),
    "double": (write(b"II*\0" + bytes(40)), UNKNOWN, "error"),
    "16 bit": (save(RAMP.astype(np.uint16)), "16-bit images", "oddity"),
    "transparent": (see_through, "images with transparency", "oddity"),
    "frames": (frames, "files of several frames or pages", "oddity"),
    "many pixels": (save(np.zeros((10_000, 10_000), bool)), "images of more than 89 mil", "oddity"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(tmp_path: Path, kind: str) -> None:
    spoil, expected, severity = KINDS[kind]
    paths = [tmp_path / f"{index}.jpg" for index in range(4)]
    for path in paths:
        Image.fromarray(photo()).save(path)
    spoil(paths[2])
    (found,) = check_image_files(list(map(str, paths)))
    assert found.kind.startswith(expected)
    assert (found.severity, found.count) == (severity, 1)
    assert found.example.startswith(f"'{paths[2]}'")
    assert found.advice
    if kind in ("pointer", "page", "heic"):
        assert {"pointer": "git lfs pull", "page": "web page", "heic": "HEIC"}[
            kind
        ] in found.example


def ended(path: Path) -> None:
    """Bytes that cameras append, and an end marker that a writer left out."""
    data = path.read_bytes()
    path.write_bytes(data + b"trailer SEFT")


@pytest.mark.parametrize(
    "change",
    [
        ended,
        lambda path: path.write_bytes(png(photo())[:-12]),
        lambda path: path.write_bytes(png(photo()) + b"more"),
        lambda path: Image.fromarray(photo()).convert("RGBA").save(path, "PNG"),
        lambda path: Image.fromarray(photo()).convert("CMYK").save(path),
        lambda path: Image.fromarray(photo()).save(path, exif=b"Exif\0\0broken"),
        lambda path: (path.rename(path.with_suffix(".x")), path.symlink_to(path.with_suffix(".x"))),
    ],
)
def test_images_that_look_odd_and_are_sound(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(photo(64, 64)).save(path)
    change(path)
    assert check_image_files([str(path)]) == []


@pytest.mark.usefixtures("no_decoding")
def test_pixels_are_not_read(tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "bmp", "webp", "tif", "gif", "ppm"):
        Image.fromarray(photo()).save(tmp_path / f"image.{suffix}")
    paths = [str(path) for path in tmp_path.iterdir()]
    assert check_image_files(paths, [(40, 30)] * 7) == []


def test_threads_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a network lets files wait."""
    for index in range(12):
        KINDS[list(KINDS)[2 + index % 3]][0](tmp_path / f"{index:02}.png")
    paths = sorted(map(str, tmp_path.iterdir()))
    one_by_one = check_image_files(paths, workers=1)
    monkeypatch.setattr(image_checks, "_TIMED", 2)
    monkeypatch.setattr(image_checks, "_PART", 3)
    monkeypatch.setattr(image_checks, "_WAIT_SECONDS", -1.0)
    assert check_image_files(paths, workers=4) == one_by_one
    assert [finding.count for finding in one_by_one] == [4, 8]


def test_progress_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_checks, "_SAY_SECONDS", -1.0)
    monkeypatch.setattr(image_checks, "_TIMED", 1)
    Image.fromarray(photo()).save(tmp_path / "image.png")
    with caplog.at_level(logging.INFO):
        check_image_files([str(tmp_path / "image.png")] * 3)
    assert caplog.messages == [f"headers of {n} of 3 images are read" for n in (2, 3)]


def test_once_per_data_set_and_a_sample_of_many(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_checks, "BEFORE_A_RUN", 3)
    asked: list[Sequence[str]] = []

    def check(paths: Sequence[str], sizes: object = None) -> list[Finding]:
        asked.append(paths)
        return []

    monkeypatch.setattr(image_checks, "check_image_files", check)
    odd = Finding("oddities", "oddity", 1, "'it'", "look at it")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            check_before_run(str(tmp_path), list("abcdefg"), [(1, 1)] * 7, [odd])
    assert asked == [["a", "d", "g"]]
    assert caplog.messages == [
        f"data set '{tmp_path}': the headers of one image in 3 are checked",
        f"data set '{tmp_path}': 1 × oddities, first 'it'; look at it",
    ]


def test_a_data_set_is_refused_until_it_is_mended(
    register: Callable[..., str], own_json: Path
) -> None:
    name = register(own_json)
    records = load_records(name)
    image = own_json.parent / "3.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:200])
    (own_json.parent / "5.jpg").write_bytes(b"")
    message = (
        rf"'{name}': 1 × image files of 0 bytes, first '.*5.jpg'; copy them again or take them out "
        r"\(also: 1 × image files that are truncated or broken\)"
    )
    with pytest.raises(UserError, match=message):
        check_before_run(name, *image_files(records))
    for path in (image, own_json.parent / "5.jpg"):
        path.write_bytes(whole)
    check_before_run(name, *image_files(records[:5]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".ipynb_checkpoints", True),
        ("__MACOSX", True),
        ("._photo.jpg", True),
        (".DS_Store", True),
        ("Thumbs.db", True),
        ("@eaDir", True),
        ("_annotations.coco.json", False),
        ("__background__", False),
        ("photo.jpg", False),
    ],
)
def test_hidden_names(name: str, expected: bool) -> None:
    assert is_hidden(name) is expected
