"""Images that cannot be read: left out up to a limit, the same with any number of processes."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from backbones import UserError
from detection.engine.sampler import Augmented, Draw, ResumableSampler
from detection.engine.unreadable import UnreadableImageError, UnreadableImages


class _Images(Dataset[int]):
    """Numbers, some of which cannot be read."""

    def __init__(self, *broken: int) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        if index in self.broken:
            raise UnreadableImageError(f"cannot read the image '{index}.jpg'", f"{index}.jpg")
        return index


def numbers(unreadable: UnreadableImages, *broken: int, workers: int = 0, start: int = 0) -> Any:
    sampler = ResumableSampler(10, seed=0, start=start)
    data = Augmented(_Images(*broken), sampler.seed, unreadable)
    loader = DataLoader(data, batch_size=2, sampler=sampler, num_workers=workers)
    return [batch.tolist() for batch in islice(loader, 15)]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_image_takes_its_place(tmp_path: Path, workers: int) -> None:
    """All loader processes together, and a run that goes on."""
    whole = numbers(UnreadableImages())
    place = {2: 3, 8: 0, 9: 0}
    expected = [[place.get(number, number) for number in batch] for batch in whole]
    unreadable = UnreadableImages(3, tmp_path)
    assert numbers(unreadable, 2, 8, 9, workers=workers) == expected
    listed = [json.loads(line) for line in unreadable.file.read_text().splitlines()]
    assert {"image": "8.jpg", "error": "cannot read the image '8.jpg'"} in listed
    assert sorted(unreadable.listed()) == ["2.jpg", "8.jpg", "9.jpg"]
    resumed = numbers(unreadable, 2, 8, 9, workers=workers, start=10)
    assert resumed[:10] == expected[5:]


@pytest.mark.parametrize("workers", [0, 2])
def test_one_too_many(tmp_path: Path, workers: int) -> None:
    unreadable = UnreadableImages(2, tmp_path)
    with pytest.raises(UserError, match=r"3 images cannot be read, such as .*\.jpg, ") as caught:
        numbers(unreadable, 2, 8, 9, workers=workers)
    assert "DATALOADER.MAX_UNREADABLE_IMAGES is 2" in str(caught.value)
    assert f"'{unreadable.file}'" in str(caught.value)


def test_the_first_ends_a_run_by_default(tmp_path: Path) -> None:
    data = Augmented(_Images(4), 0)
    assert data[Draw(3)] == 3
    with pytest.raises(UnreadableImageError, match="'4.jpg'"):
        data[Draw(4)]


def test_a_data_set_without_any(tmp_path: Path) -> None:
    data = Augmented(_Images(*range(10)), 0, UnreadableImages(99, tmp_path))
    with pytest.raises(UserError, match="none of 10 images can be read"):
        data[Draw(4)]


def test_other_mistakes_end_a_run(tmp_path: Path) -> None:
    class _Odd(_Images):
        def __getitem__(self, index: int) -> int:
            raise UserError("the annotations do not fit")

    with pytest.raises(UserError, match="do not fit"):
        Augmented(_Odd(), 0, UnreadableImages(99, tmp_path))[Draw(1)]
    assert not list(tmp_path.iterdir())
