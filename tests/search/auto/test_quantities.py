"""Runtimes and times as they are typed."""

from __future__ import annotations

import pytest

from backbones import UserError
from search.auto.quantities import parse_duration, parse_runtime, spoken, target_name


@pytest.mark.parametrize(
    ("text", "runtime"),
    [("15ms", 15.0), ("15", 15.0), ("7.5 ms", 7.5), ("0.5s", 500.0), ("900us", 0.9), ("2MS", 2.0)],
)
def test_runtimes(text: str, runtime: float) -> None:
    assert parse_runtime(text) == pytest.approx(runtime)


@pytest.mark.parametrize("text", ["15fps", "fast", "", "15 m", "1e3ms"])
def test_a_runtime_in_another_unit(text: str) -> None:
    with pytest.raises(UserError, match=f"--target is '{text}'; expected a runtime in ms, s or us"):
        parse_runtime(text)


@pytest.mark.parametrize("text", ["0ms", "-3ms"])
def test_a_runtime_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=f"'{text}'; expected a runtime above 0"):
        parse_runtime(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_seconds_without_a_unit_are_refused_with_the_way_out() -> None:
    with pytest.raises(UserError, match="5400s for seconds, 5400m for minutes or 5400h for hours"):
        parse_duration("5400")


@pytest.mark.parametrize("text", ["soon", "0m", "-2h", "2d", "1h1h", "m"])
def test_a_duration_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=f"--budget is '{text}'; expected a time above 0"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1s"), (59, "59s"), (60, "1m"), (2040, "34m"), (5400, "1h30m"), (7200, "2h")],
)
def test_what_is_said_can_be_typed(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
    assert parse_duration(text) == pytest.approx(seconds, abs=1)


def test_a_target_names_a_folder() -> None:
    assert [target_name(value) for value in (15.0, 7.5)] == ["15ms", "7.5ms"]
