"""What a search step costs on a machine that others use too, by how its threads wait."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from backbones.errors import UserError
from backbones.inference.hardware import device_name
from backbones.latency import LatencyTable
from backbones.threads import SPINS
from detection.engine.provenance import provenance
from search.space import SearchSpace
from search.studies.benchmarks.search_step import interleaved_seconds, make_step
from search.studies.markdown import beside, table

_LOOP = "while True: pass"
_BATCH, _SIZE = 32, 64
"""The demo's."""


def settings(cores: int) -> dict[str, dict[str, str]]:
    """The environments that are compared; the first is the one to compare with."""
    all_cores = {"OMP_NUM_THREADS": str(cores)}
    return {
        f"{cores} threads": {**all_cores, "GOMP_SPINCOUNT": str(SPINS)},
        f"{cores} threads, OpenMP's own waiting": {**all_cores, "GOMP_SPINCOUNT": "300000"},
        f"{cores} threads, OMP_WAIT_POLICY=PASSIVE": {**all_cores, "OMP_WAIT_POLICY": "PASSIVE"},
        "1 thread": {"OMP_NUM_THREADS": "1"},
    }


def busy_machine_report(cores: int, repeats: int) -> dict[str, Any]:
    """The seconds of a supernet's step alone, and beside a process that keeps one core busy.

    Args:
        cores: threads of the settings that use several.
        repeats: timed steps of each.

    Raises:
        UserError: if a number is too small to measure anything.
    """
    for name, value, least in (("--threads", cores, 2), ("--repeats", repeats, 1)):
        if value < least:
            raise UserError(f"{name} is {value}; expected {least} or more")
    origin = provenance()
    rows = {}
    for name, chosen in settings(cores).items():
        alone = _seconds(chosen, repeats)
        with _busy_core():
            rows[name] = {"alone": alone, "beside": _seconds(chosen, repeats)}
    return {**origin, "hardware": device_name("cpu"), "seconds": rows}


def busy_machine_section(study: Mapping[str, Any]) -> str:
    """Seconds and ratios to the first setting's."""
    rows: dict[str, dict[str, float]] = study["seconds"]
    first = next(iter(rows.values()))
    cells = []
    for name, seconds in rows.items():
        row = [name]
        for where in ("alone", "beside"):
            row += [f"{seconds[where]:.2f} s", f"{seconds[where] / first[where]:.2f}"]
        cells.append(row)
    headers = ["a search step with", "alone", "ratio", "beside a busy process", "ratio"]
    return f"{table(headers, cells)}\n\n{beside(study)}"


@contextlib.contextmanager
def _busy_core() -> Iterator[None]:
    loop = subprocess.Popen([sys.executable, "-c", _LOOP])
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def _seconds(chosen: Mapping[str, str], repeats: int) -> float:
    """Of one step, in a process of its own, since OpenMP reads its settings once."""
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-m", "search.studies.benchmarks.busy_machine", str(repeats)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**kept, **chosen}
    )
    return float(done.stdout.split()[-1])


def _print_seconds(repeats: int) -> None:
    space, latency = SearchSpace.load("imagenet"), LatencyTable.load("pixel1")
    step = make_step("supernet", space, latency, torch.device("cpu"), _BATCH, _SIZE)
    print(*interleaved_seconds([step], repeats))


if __name__ == "__main__":
    _print_seconds(int(sys.argv[1]))
