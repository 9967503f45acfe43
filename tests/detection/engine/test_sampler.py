from __future__ import annotations

import pickle
import random
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from torch.utils.data import Dataset

from backbones.errors import UserError
from detection.engine.sampler import Augmented, Draw, ResumableSampler


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("start", [0, 3, 10, 11, 37])
def test_continues_detectron2s_order(shuffle: bool, start: int) -> None:
    whole = list(islice(TrainingSampler(10, shuffle=shuffle, seed=7), start + 25))
    resumed = ResumableSampler(10, shuffle=shuffle, seed=7, start=start)
    assert list(islice(resumed, 25)) == whole[start:]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_ranks_share_the_stream(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    whole = list(islice(TrainingSampler(10, seed=3), 30))
    # 12 samples drawn by three ranks: four each.
    resumed = ResumableSampler(10, seed=3, start=12)
    assert list(islice(resumed, 20)) == whole[4:24]


def test_start_may_be_set_after_construction() -> None:
    sampler = ResumableSampler(10, seed=1)
    stream = iter(sampler)
    sampler.start = 13
    assert list(islice(stream, 5)) == list(islice(ResumableSampler(10, seed=1, start=13), 5))


def test_without_a_seed_the_ranks_agree_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 7)
    sampler = ResumableSampler(10)
    assert sampler.seed == 7
    assert list(islice(sampler, 20)) == list(islice(TrainingSampler(10, seed=7), 20))


def test_every_epoch_has_every_sample() -> None:
    stream = list(islice(ResumableSampler(8, seed=0, start=16), 16))
    assert sorted(stream[:8]) == sorted(stream[8:]) == list(range(8))
    assert stream[:8] != stream[8:]


@pytest.mark.parametrize("start", [0, 5, 13])
def test_every_index_knows_its_position(start: int) -> None:
    draws = list(islice(ResumableSampler(5, seed=0, start=start), 12))
    assert [draw.position for draw in draws] == list(range(start, start + 12))
    sent = pickle.loads(pickle.dumps(draws[1]))  # as to a loader process
    assert (sent, sent.position) == (draws[1], start + 1)


class _Noise(Dataset[list[float]]):
    """An image's number, and what its augmentation draws from each generator."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> list[float]:
        return [index, random.random(), np.random.rand(), float(torch.rand(()))]


def test_augmentation_depends_on_seed_and_position_alone() -> None:
    data = Augmented(_Noise(), seed=3)
    assert len(data) == 4
    first = data[Draw(2, 7)]
    torch.manual_seed(1)
    states = random.getstate(), torch.get_rng_state()
    assert data[Draw(2, 7)] == first
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    others = [data[Draw(2, 8)], Augmented(_Noise(), seed=4)[Draw(2, 7)]]
    for other in others:
        assert other[0] == 2 and not set(other[1:]) & set(first[1:])


@pytest.mark.parametrize(("size", "start", "named"), [(0, 0, "0 samples"), (4, -1, "-1")])
def test_impossible_arguments(size: int, start: int, named: str) -> None:
    with pytest.raises(UserError, match=named):
        ResumableSampler(size, seed=0, start=start)
