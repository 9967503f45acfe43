"""Costs are medians of steps in turns; a step that fails is told, and the others go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from backbones.errors import UserError
from search.studies.benchmarks import costs as module
from search.studies.benchmarks.costs import (
    PRECISIONS,
    WARMUP_STEPS,
    Case,
    check_counts,
    check_device,
    costs,
    error_line,
    precision_of,
    precision_options,
    with_ratios,
)
from tests.tiny_coco import own_config


class Clock:
    """In place of the module's ``time``: moves by as much as steps say that they take."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_cases_take_turns_behind_their_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(), list[str]()
    monkeypatch.setattr(module, "time", clock)

    def make(name: str, *seconds: float) -> Callable[[], Callable[[], None]]:
        left = iter(seconds)

        def step() -> None:
            calls.append(name)
            clock.now += next(left)

        return lambda: step

    cases = [
        Case("slow", make("slow", 50, 50, 7, 40, 8)),
        Case("fast", make("fast", 9, 9, 2, 1, 6)),
    ]
    found = costs(cases, "cpu", repeats=3)
    assert found == {
        "slow": {"seconds": 8, "first_seconds": 100},
        "fast": {"seconds": 2, "first_seconds": 18},
    }
    warmup = ["slow"] * WARMUP_STEPS + ["fast"] * WARMUP_STEPS
    assert calls == warmup + ["slow", "fast"] * 3


def test_a_case_that_fails_does_not_end_the_others() -> None:
    line = "OutOfMemoryError: CUDA out of memory. Tried to allocate 51 GiB."

    def fail() -> None:
        raise torch.OutOfMemoryError(line.partition(": ")[2] + "\nSee the manual")

    def fail_later(left: int) -> Callable[[], None]:
        def step() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise RuntimeError("gone")

        return step

    cases = [
        Case("no room", lambda: fail),
        Case("gone", lambda: fail_later(WARMUP_STEPS + 1)),
        Case("well", lambda: lambda: None),
    ]
    found = costs(cases, "cpu", repeats=2)
    assert found["no room"] == {"error": line}
    assert found["gone"] == {"error": "RuntimeError: gone"}
    assert found["well"]["seconds"] >= 0


def test_a_mistake_of_the_user_ends_them() -> None:
    def fail() -> Callable[[], None]:
        raise UserError("no such precision")

    with pytest.raises(UserError, match="no such precision"):
        costs([Case("wrong", fail)], "cpu", repeats=1)


def test_ratios_are_to_the_reference() -> None:
    found = {
        "a": {"seconds": 3.0, "peak_bytes": 10},
        "b": {"seconds": 2.0, "peak_bytes": 20},
        "c": {"error": "no room"},
    }
    ratios = with_ratios(found, "b")
    assert ratios["a"] == {"seconds": 3, "peak_bytes": 10, "time_ratio": 1.5, "memory_ratio": 0.5}
    assert ratios["c"] == {"error": "no room"}
    assert with_ratios(found, "c") == found


@pytest.mark.parametrize("name", PRECISIONS)
def test_products_are_in_the_precision(name: str) -> None:
    """Of a step that is made here, and of a training with the keys for it."""
    with precision_of(name, "cpu").autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == getattr(torch, name)
    cfg = own_config(*precision_options(name))
    assert (name != "float32") == cfg.SOLVER.AMP.ENABLED
    assert not cfg.SOLVER.AMP.ENABLED or name == cfg.SOLVER.AMP.DTYPE


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: precision_of("float8", "cpu"), "float32, float16, bfloat16"),
        (lambda: check_counts(batch=4, repeats=0), "--repeats is 0; expected 1 or more"),
    ],
)
def test_wrong_values_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_device("cpu")
    with pytest.raises(UserError, match="no usable GPU here; use --device cpu"):
        check_device("cuda")


def test_an_error_without_words_is_its_kind() -> None:
    assert error_line(MemoryError()) == "MemoryError"
