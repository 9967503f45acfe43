"""Scalars on a device: read together, and as if they had been read at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage

from detection.engine.deferred import DeferredStorage


def put(storage: EventStorage, made: Callable[[float], Any]) -> None:
    """Some steps with losses that are smoothed, and a rate that is not, under two prefixes."""
    with storage:
        for step in range(5):
            storage.put_scalar("loss", made(1.5 * step))
            storage.put_scalar("time", 0.1)
            with storage.name_scope("head"):
                storage.put_scalars(mask=made(step / 3), box=made(float("nan")))
            storage.put_scalar("rate", made(2.0**-step), smoothing_hint=False)
            storage.step()


def text(found: Any) -> str:
    """In order of the names; as text, for not a number is equal to nothing."""
    return repr(sorted(found.items()) if isinstance(found, dict) else found)


READS: dict[str, Callable[[EventStorage], Any]] = {
    "history": lambda storage: storage.history("head/mask").values(),
    "histories": lambda storage: {n: h.values() for n, h in storage.histories().items()},
    "latest": lambda storage: storage.latest(),
    "smoothed": lambda storage: storage.latest_with_smoothing_hint(3),
    "hints": lambda storage: storage.smoothing_hints(),
}


@pytest.mark.parametrize("name", READS)
def test_every_reader_finds_what_would_have_been_there(name: str) -> None:
    expected, found = EventStorage(7), DeferredStorage(7)
    put(expected, float)
    put(found, lambda value: torch.tensor(value, dtype=torch.float64, requires_grad=True) + 0)
    for read in (READS[name], READS["latest"]):
        assert text(read(found)) == text(read(expected))
    assert found.iter == expected.iter == 12


def test_nothing_is_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """And then all of it in one transfer."""
    storage, transfers = DeferredStorage(), list[int]()
    tolist = torch.Tensor.tolist

    def counted(self: torch.Tensor) -> Any:
        transfers.append(self.numel())
        return tolist(self)

    def refused(self: torch.Tensor) -> float:
        raise AssertionError("a step waits")

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    monkeypatch.setattr(torch.Tensor, "__float__", refused)
    monkeypatch.setattr(torch.Tensor, "item", refused)
    put(storage, torch.tensor)
    assert not transfers
    assert storage.history("loss").values()[-1] == (6.0, 4)
    assert transfers == [4 * 5]
    storage.latest()
    assert transfers == [4 * 5]
