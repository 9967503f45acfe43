"""Scalars that stay on their device until somebody looks at them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor


class DeferredStorage(EventStorage):
    """Detectron2's storage, which does not wait for a scalar that a device is still computing.

    A step that reads a loss as a number waits for all that it launched. Here tensors are kept as
    they are, and brought to the host together when histories are read: at the log period, for an
    evaluation or a checkpoint. Whoever reads finds what would have been there at once.

    Args:
        start_iter: the iteration to start from.
    """

    _current_prefix: str
    _iter: int

    def __init__(self, start_iter: int = 0) -> None:
        super().__init__(start_iter)
        self._waiting: list[tuple[str, int, str, Tensor, bool]] = []

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, **options: Any
    ) -> None:
        """As the base class; a tensor is not to be changed afterwards."""
        if isinstance(value, Tensor) and not options:
            place = self._current_prefix, self._iter
            self._waiting.append((*place, name, value.detach(), smoothing_hint))
        else:
            super().put_scalar(name, value, smoothing_hint, **options)

    def history(self, name: str) -> Any:
        """Of one scalar."""
        self.read()
        return super().history(name)

    def histories(self) -> Any:
        """Of all scalars."""
        self.read()
        return super().histories()

    def latest(self) -> Any:
        """The last value of every scalar, and its iteration."""
        self.read()
        return super().latest()

    def latest_with_smoothing_hint(self, window_size: int = 20) -> Any:
        """The same, as medians of those that are to be smoothed."""
        self.read()
        return super().latest_with_smoothing_hint(window_size)

    def smoothing_hints(self) -> Any:
        """Of every scalar, whether it is to be smoothed."""
        self.read()
        return super().smoothing_hints()

    def read(self) -> None:
        """Brings to the host what waits, in one transfer for every device."""
        waiting, self._waiting = self._waiting, []
        devices: dict[torch.device, list[Tensor]] = defaultdict(list)
        for *_, value, _ in waiting:
            devices[value.device].append(value.reshape(()).to(torch.float64))
        found = {device: iter(torch.stack(all_).tolist()) for device, all_ in devices.items()}
        present = self._current_prefix, self._iter
        for prefix, iteration, name, value, hint in waiting:
            self._current_prefix, self._iter = prefix, iteration
            super().put_scalar(name, next(found[value.device]), hint)
        self._current_prefix, self._iter = present
