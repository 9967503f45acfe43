"""The benchmark takes turns, and compares what it says it compares."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from backbones import LatencyTable
from search.space import SearchSpace
from search.studies.benchmarks import search_step
from search.studies.benchmarks.search_step import (
    NETWORKS,
    interleaved_seconds,
    make_step,
    peak_bytes,
    search_step_report,
)


def test_steps_take_turns_and_the_first_round_is_left_out() -> None:
    calls: list[str] = []

    def slow() -> None:
        calls.append("slow")
        time.sleep(0.5 if len(calls) < 3 else 0.02)

    seconds = interleaved_seconds([slow, lambda: calls.append("fast")], repeats=3)
    assert calls == ["slow", "fast"] * 4
    assert 0.02 <= seconds[0] < 0.4
    assert seconds[1] < seconds[0]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_trains(network: str, space: SearchSpace, table: LatencyTable) -> None:
    built: list[torch.nn.Module] = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: built.append(module)
    )
    try:
        step = make_step(network, space, table, torch.device("cpu"), batch=2, size=32)
        step()
        before = {n: p.clone() for n, p in built[0].named_parameters()}
        step()
    finally:
        hook.remove()
    moved = [n for n, p in built[0].named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) > 0.9 * len(before)
    deciding = {"supernet": "thresholds", "multi_path": "path_logits"}.get(network, "none")
    assert any(name.startswith(deciding) for name in moved) == (network != "largest")


def test_report_has_both_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"supernet": 105, "multi_path": 300, "largest": 100}
    monkeypatch.setattr(search_step, "peak_bytes", lambda network, *_: peaks[network])
    report: dict[str, Any] = search_step_report("imagenet", "pixel1", "cpu", 2, 32, repeats=1)
    for name in NETWORKS:
        assert report[name]["memory_ratio"] == pytest.approx(peaks[name] / 100)
        assert report[name]["time_ratio"] == pytest.approx(
            report[name]["seconds"] / report["largest"]["seconds"]
        )


def test_memory_of_a_gpu_is_counted_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above what is allocated before the network is built, over the building and two steps."""
    held, peak = 40, 70  # of an earlier network

    def allocate(amount: int) -> None:
        nonlocal held, peak
        held += amount
        peak = max(peak, held)

    def make(network: str, *setting: Any) -> Callable[[], None]:
        batch = setting[-2]
        model = 10 if batch == 2 else 100
        allocate(model)

        def step() -> None:
            allocate(batch)
            allocate(-batch)

        if batch == 2:
            allocate(-model)
        return step

    def reset() -> None:
        nonlocal peak
        peak = held

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(search_step, "make_step", make)
    monkeypatch.setattr(search_step.subprocess, "run", forbidden)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: held)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    assert peak_bytes("supernet", "imagenet", "pixel1", "cuda", 32, 224) == 100 + 32
