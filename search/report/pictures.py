"""Predictions beside their ground truth, as a page can hold them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from backbones.errors import UserError
from backbones.files import read_json
from detection.samples import SAMPLES_FILE
from search.report.runs import Run

_WIDTH, _QUALITY = 900, 80
"""Of a picture of two halves in the page: its largest width in pixels, and JPEG's quality."""

_MOST = 16


@dataclass(frozen=True)
class Picture:
    """An image with its ground truth, and to its right with what was found.

    Attributes:
        title: the image's file, and how good it is.
        kind: ``best``, ``worst`` or ``first``.
        source: address that holds the image itself.
        width, height: in pixels.
    """

    title: str
    kind: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Gallery:
    """Pictures of one test set, and what is known of its objects.

    Attributes:
        dataset: its name.
        pictures: of its images.
        facts: of the annotation file; empty for runs that left none.
        score: detections below it are left out.
    """

    dataset: str
    pictures: tuple[Picture, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    score: float = 0.5


def galleries(run: Run) -> list[Gallery]:
    """The pictures of a run; where it left no best and worst images, its first ones."""
    top = run.folder / "predictions"
    found = [_ranked(file, top) for file in sorted(top.rglob(SAMPLES_FILE))]
    if not found:
        places = sorted({file.parent for file in top.rglob("*.jpg")})
        found = [_first(place, top) for place in places]
    return [gallery for gallery in found if gallery.pictures]


def _ranked(file: Path, top: Path) -> Gallery:
    content = read_json(file, "samples")
    pictures = [
        _picture(file.parent / Path(row["picture"]).name, _title(row), row["kind"])
        for row in content["images"][:_MOST]
    ]
    name = file.parent.relative_to(top).as_posix()
    return Gallery(name, tuple(pictures), content["facts"], content["score"])


def _first(place: Path, top: Path) -> Gallery:
    files = sorted(place.glob("*.jpg"))[:_MOST]
    name = place.relative_to(top).as_posix()
    return Gallery(name, tuple(_picture(f, f.stem.partition("_")[2], "first") for f in files))


def _title(row: Mapping[str, Any]) -> str:
    counts = f"{row['found']} found, {row['missed']} missed, {row['wrong']} wrong"
    return f"{row['image']}: {counts}, F1 {row['f1']:.2f}"


def _picture(file: Path, title: str, kind: str) -> Picture:
    try:
        with Image.open(file) as image:
            image = image.convert("RGB")
            image.thumbnail((_WIDTH, _WIDTH))
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(
            f"cannot read the picture '{file}' ({error}); delete it, or evaluate the run again"
        ) from None
    data = io.BytesIO()
    image.save(data, "JPEG", quality=_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return Picture(title, kind, source, *image.size)
