"""The benchmark takes turns, and compares what it says it compares."""

from __future__ import annotations

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
    search_step_section,
)


class Clock:
    """In place of the module's ``time``: moves by as much as steps say that they take."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_steps_take_turns_and_the_first_round_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Medians of what each step took itself, without the first round, which warms up."""
    clock, calls = Clock(), list[str]()
    monkeypatch.setattr(search_step, "time", clock)

    def step(name: str, *seconds: float) -> Callable[[], None]:
        left = iter(seconds)

        def run() -> None:
            calls.append(name)
            clock.now += next(left)

        return run

    steps = [step("slow", 500, 7, 40, 8), step("fast", 300, 2, 1, 6)]
    assert interleaved_seconds(steps, repeats=3) == [8, 2]
    assert calls == ["slow", "fast"] * 4


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
    """Of every network to the largest, whose steps are told apart by their names."""
    peaks = {"supernet": 105, "multi_path": 300, "largest": 100}
    seconds = {"supernet": 1.5, "multi_path": 6.0, "largest": 0.5}
    monkeypatch.setattr(search_step, "peak_bytes", lambda network, *_: peaks[network])
    operations = {"supernet": 48, "multi_path": 320, "largest": 40}
    monkeypatch.setattr(search_step, "operations_of", lambda network, *_: operations[network])
    monkeypatch.setattr(search_step, "make_step", lambda network, *_: network)
    monkeypatch.setattr(
        search_step, "interleaved_seconds", lambda steps, repeats: [seconds[s] for s in steps]
    )
    report: dict[str, Any] = search_step_report("imagenet", "pixel1", "cpu", 2, 32, repeats=1)
    assert {name: report[name]["memory_ratio"] for name in NETWORKS} == {
        "supernet": 1.05,
        "multi_path": 3,
        "largest": 1,
    }
    assert {name: report[name]["time_ratio"] for name in NETWORKS} == {
        "supernet": 3,
        "multi_path": 12,
        "largest": 1,
    }
    assert [report[name]["operations"] for name in NETWORKS] == [48, 320, 40]
    assert [report[name]["operations_ratio"] for name in NETWORKS] == [1.2, 8, 1]
    table = search_step_section(report)
    for text in ("| operations", "| 320 ", "1.050", "3.000"):
        assert text in table
    for name in NETWORKS:  # a study of the time before they were counted
        del report[name]["operations"]
    assert "| operations" not in search_step_section(report)
    assert (report["batch"], report["size"], report["repeats"]) == (2, 32, 1)


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
