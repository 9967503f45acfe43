"""Evaluation without the images that cannot be read, where a run may leave some out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from detection.engine.unreadable import UnreadableImageError, UnreadableImages


class Readable(Dataset[Any]):
    """A data set whose unreadable images are None, as far as they may be left out."""

    def __init__(self, dataset: Dataset[Any], unreadable: UnreadableImages) -> None:
        self.dataset = dataset
        self.unreadable = unreadable

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UnreadableImageError as error:
            self.unreadable.leave_out(error)
            return None


def collated(size: int, layout: torch.memory_format, samples: list[Any]) -> tuple[Tensor, Tensor]:
    """(N, 3, size, size) images in a memory layout, and (N,) classes; N can be 0."""
    kept = [sample for sample in samples if sample is not None]
    if kept:
        images, targets = default_collate(kept)
        return images.contiguous(memory_format=layout), targets
    return torch.empty(0, 3, size, size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
