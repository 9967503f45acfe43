"""The benchmark of threads that wait measures what it says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from backbones import UserError
from backbones.threads import SPINS
from search.studies.benchmarks import busy_machine
from search.studies.benchmarks.busy_machine import busy_machine_report, busy_machine_section


def test_a_step_is_measured_in_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str | None, ...]] = []

    def seconds(chosen: Mapping[str, str], repeats: int) -> float:
        names = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
        seen.append(tuple(chosen.get(name) for name in names))
        return float(len(seen))

    monkeypatch.setattr(busy_machine, "_seconds", seconds)
    study = busy_machine_report(4, 1)
    settings = [
        ("4", str(SPINS), None),
        ("4", "300000", None),
        ("4", None, "PASSIVE"),
        ("1", None, None),
    ]
    assert seen == [setting for setting in settings for _ in ("alone", "beside")]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in busy_machine_section(study).splitlines()
    ]
    assert ["4 threads", "1.00 s", "1.00", "2.00 s", "1.00"] in rows
    assert ["1 thread", "7.00 s", "7.00", "8.00 s", "4.00"] in rows


def test_a_step_takes_time() -> None:
    assert 0 < busy_machine._seconds({"OMP_NUM_THREADS": "1"}, 1) < 600


@pytest.mark.parametrize(("threads", "repeats"), [(1, 1), (2, 0)])
def test_numbers_that_measure_nothing(threads: int, repeats: int) -> None:
    with pytest.raises(UserError, match="expected . or more"):
        busy_machine_report(threads, repeats)
