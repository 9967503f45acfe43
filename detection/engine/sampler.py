"""Detectron2's training order of samples, and their augmentation, from any point on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from backbones.errors import UserError
from detection.engine.random_state import drawn_by
from detection.engine.unreadable import UnreadableImageError, UnreadableImages


class Draw(int):
    """An index that knows where in the stream of all processes it was drawn.

    Attributes:
        position: from 0.
    """

    position: int

    def __new__(cls, index: int, position: int = 0) -> Draw:
        """An index at a position."""
        draw = super().__new__(cls, index)
        draw.position = position
        return draw


class Augmented(Dataset[Any]):
    """A data set whose random augmentation depends on seed and position in the stream alone.

    So a resumed run repeats none, and draws what the run without a break would have drawn, with
    any number of loader processes. The same holds for what takes the place of images that cannot
    be read: the next one of the data set that can.

    Args:
        dataset: augments what it returns.
        seed: of the stream.
        unreadable: images that are left out; by default the first ends the run.
    """

    def __init__(self, dataset: Any, seed: int, unreadable: UnreadableImages | None = None) -> None:
        self.dataset = dataset
        self.seed = seed
        self.unreadable = unreadable or UnreadableImages()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Any:
        """What the data set has at an index, augmented as is due at its position."""
        count = len(self.dataset)
        for index in range(int(draw), int(draw) + count):
            try:
                with drawn_by(f"{self.seed} {draw.position}"):
                    return self.dataset[index % count]
            except UnreadableImageError as error:
                self.unreadable.leave_out(error)
        raise UserError(f"none of {count} images can be read; see that the data set is sound")


class ResumableSampler(Sampler[int]):
    """An infinite stream of sample indices, sharded by rank, that can start anywhere.

    The stream is that of Detectron2's ``TrainingSampler``: one permutation of the data set after
    the other, all drawn from one generator, rank r taking every ``world size``-th index from the
    r-th on. A run resumed with ``start`` sees exactly the samples that an uninterrupted one
    would have seen. Each index is a :class:`Draw`.

    Attributes:
        seed: of the permutations; the same on every rank.
        start: samples already drawn; may be set until the first sample is drawn.
    """

    def __init__(
        self,
        size: int,
        *,
        shuffle: bool = True,
        seed: int | None = None,
        start: int = 0,
        part: tuple[int, int] | None = None,
    ) -> None:
        """Checks the arguments; nothing is drawn yet.

        Args:
            size: samples in the data set.
            shuffle: whether to permute every epoch.
            seed: the same on every rank; if missing, the ranks agree on a random one.
            start: samples already drawn by all ranks together, i.e. finished iterations times
                the total batch size.
            part: (r, n) takes every n-th index from the r-th on; by default, rank and world size.

        Raises:
            UserError: if the data set is empty or ``start`` is negative.
        """
        if size < 1:
            raise UserError(f"the training data set has {size} samples; expected at least one")
        if start < 0:
            raise UserError(f"start is {start}; expected a number of samples, 0 or more")
        self.size = size
        self.shuffle = shuffle
        self.seed = comm.shared_random_seed() if seed is None else int(seed)
        self.start = start
        self._part = part or (comm.get_rank(), comm.get_world_size())

    def __iter__(self) -> Iterator[int]:
        first, step = self._part
        yield from itertools.islice(self._stream(), first, None, step)

    def _stream(self) -> Iterator[Draw]:
        epochs, offset = divmod(self.start, self.size)
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        # Finished epochs only advance the generator, which is what keeps the order of later
        # epochs; a permutation of COCO takes about a millisecond.
        for _ in range(epochs if self.shuffle else 0):
            torch.randperm(self.size, generator=generator)
        while True:
            if self.shuffle:
                indices = torch.randperm(self.size, generator=generator)
            else:
                indices = torch.arange(self.size)
            done = epochs * self.size
            for number, index in enumerate(indices[offset:].tolist(), start=done + offset):
                yield Draw(index, number)
            epochs, offset = epochs + 1, 0
