"""Every kind is measured on images of the usual size, and the report says which."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from backbones import UserError
from search.studies.benchmarks import loader
from search.studies.benchmarks.loader import (
    LABELS,
    SIZES,
    loader_report,
    loader_section,
    made_up_photo,
    save_as_usual,
)


def test_made_up_photos_are_of_the_usual_size(tmp_path: Path) -> None:
    for data, size in SIZES.items():
        bytes_ = save_as_usual(made_up_photo(data, 1), data, tmp_path / "a.jpg")
        assert 0.6 * loader._BYTES[data] < bytes_ <= loader._BYTES[data]
        with Image.open(tmp_path / "a.jpg") as image:
            assert image.size == size


def test_every_kind_is_measured() -> None:
    threads = torch.get_num_threads()
    report = loader_report(images=2, repeats=2)
    assert torch.get_num_threads() == threads
    rates = report["images_per_second"]
    assert set(rates) == set(LABELS)
    for name, (low, high) in report["range"].items():
        assert 0 < low <= rates[name] <= high
    text = loader_section(report)
    assert all(f"{label} " in text for label in LABELS.values())
    assert "500×375 pixels" in text


def test_nothing_to_measure() -> None:
    with pytest.raises(UserError, match="--images is 1 and --repeats 5"):
        loader_report(1, 5)
