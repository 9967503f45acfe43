"""Which photos a name stands for, and how they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones import UserError
from detection.engine.unreadable import UnreadableImageError
from detection.prediction.images import find_images, readable


def write(path: Path, pixels: np.ndarray | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 6, 3), "u1") if pixels is None else pixels).save(path, **options)
    return path


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    names = ("b.jpg", "a.PNG", "deep/c.jpg", ".hidden/d.jpg", "__MACOSX/e.jpg", "deep/.f.jpg")
    for name in names:
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    below = [tmp_path / "a.PNG", tmp_path / "b.jpg", tmp_path / "deep" / "c.jpg"]
    assert find_images([str(tmp_path)]) == below
    assert find_images([f"{tmp_path}/*.jpg"]) == [tmp_path / "b.jpg"]
    assert find_images([f"{tmp_path}/**/*.jpg"]) == [tmp_path / "b.jpg", tmp_path / "deep/c.jpg"]
    # each once, in the order in which they are named
    named = [str(tmp_path / "b.jpg"), str(tmp_path)]
    assert find_images(named) == [tmp_path / "b.jpg", below[0], below[2]]
    assert find_images([str(tmp_path / "notes.txt")]) == [tmp_path / "notes.txt"]


def test_names_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    for name, message in (
        (str(tmp_path), "has no images"),
        (str(tmp_path / "none.jpg"), "no image or folder"),
        (f"{tmp_path}/*.jpg", "no image is like"),
    ):
        with pytest.raises(UserError, match=message):
            find_images([name])


def test_images_are_read_upright_in_colour_and_eight_bits(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[274] = 6
    deep = np.full((4, 6), 65535, "u2")
    deep[0] = 0
    paths = [
        write(tmp_path / "turned.jpg", exif=turned),
        write(tmp_path / "grey.png", np.full((4, 6), 7, "u1")),
        write(tmp_path / "deep.png", deep),
    ]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(paths[0].read_bytes()[:200])
    errors: list[UnreadableImageError] = []
    found = dict(readable([paths[0], broken, *paths[1:]], errors.append))
    assert [error.image for error in errors] == [str(broken)]
    assert list(found) == paths
    assert [image.shape for image in found.values()] == [(6, 4, 3), (4, 6, 3), (4, 6, 3)]
    assert {image.dtype for image in found.values()} == {np.dtype("u1")}
    assert (found[paths[1]] == 7).all()
    assert found[paths[2]][:2, 0].tolist() == [[0, 0, 0], [255, 255, 255]]
