"""Time and memory of steps that are measured in turns, in any precision."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from backbones.errors import UserError
from detection.engine.precision import DTYPES, Precision

Step = Callable[[], object]

PRECISIONS = ("float32", *DTYPES)
"""Those of ``SOLVER.AMP.DTYPE``, and none. On a GPU, PyTorch's default for ``float32`` has cuDNN's
convolutions in TF32."""

WARMUP_STEPS = 2
"""Steps of every case before any is timed: they compile, choose kernels and fill caches."""

BURST = 4
"""Steps on a GPU between two waits for it, as a training does not wait after each."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        name: in the report.
        make: builds what a step needs, and returns the step.
    """

    name: str
    make: Callable[[], Step]


def check_device(device: str) -> None:
    """Insists on a GPU where one is asked for.

    Raises:
        UserError: if there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but PyTorch finds no usable GPU here; use --device cpu")


def check_counts(**counts: int) -> None:
    """Insists on 1 or more of everything that an option of the tool counts.

    Raises:
        UserError: naming the option and its value.
    """
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"--{name} is {value}; expected 1 or more")


def precision_of(name: str, device: str) -> Precision:
    """What a step computes in, by its name in ``PRECISIONS``.

    Raises:
        UserError: for an unknown name.
    """
    if name not in PRECISIONS:
        raise UserError(f"precision '{name}'; expected one of {', '.join(PRECISIONS)}")
    return Precision(device, DTYPES.get(name))


def precision_options(name: str) -> tuple[str, ...]:
    """The keys that have a training compute in one of ``PRECISIONS``."""
    if name not in DTYPES:
        return ("SOLVER.AMP.ENABLED", "False")
    return ("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", name)


def error_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    (first, *_) = [*filter(None, map(str.strip, str(error).splitlines())), ""]
    return f"{type(error).__name__}: {first[:300]}".rstrip(": ")


def costs(cases: Sequence[Case], device: str, repeats: int) -> dict[str, dict[str, Any]]:
    """What a step of every case costs.

    All are built and warmed up, one after the other; then they are timed in turns, so that all
    meet the same disturbances. One that fails, such as for want of memory, does not end the others.

    Args:
        cases: with different names.
        device: ``cpu`` or ``cuda``.
        repeats: timed rounds.

    Returns:
        By the names: ``seconds``, the median; ``first_seconds``, which building and the steps that
        warm up took; on a GPU ``peak_bytes``, the most memory that a step had, above what was
        allocated before the case was built. Or ``error`` alone.
    """
    found: dict[str, dict[str, Any]] = {}
    steps: dict[str, Step] = {}
    for case in cases:
        try:
            steps[case.name], found[case.name] = _warmed_up(case, device)
        except UserError:
            raise
        except Exception as error:
            found[case.name] = {"error": error_line(error)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    burst = BURST if device == "cuda" else 1
    for _ in range(repeats):
        for name, step in steps.items():
            if "error" in found[name]:
                continue
            try:
                times[name].append(_seconds(step, device, burst))
            except Exception as error:
                found[name] = {"error": error_line(error)}
    for name, record in times.items():
        if "error" not in found[name]:
            found[name] = {"seconds": statistics.median(record), **found[name]}
    return found


def with_ratios(found: Mapping[str, Mapping[str, Any]], reference: str) -> dict[str, Any]:
    """Every case with its ratios of time and memory to one of them."""
    base = found[reference]
    ratios = {"time_ratio": "seconds", "memory_ratio": "peak_bytes"}
    return {
        name: {
            **cost,
            **{
                ratio: cost[key] / base[key]
                for ratio, key in ratios.items()
                if key in cost and key in base
            },
        }
        for name, cost in found.items()
    }


def _warmed_up(case: Case, device: str) -> tuple[Step, dict[str, Any]]:
    before = _reset_memory(device)
    start = time.perf_counter()
    step = case.make()
    for _ in range(WARMUP_STEPS):
        step()
    _wait(device)
    cost: dict[str, Any] = {"first_seconds": time.perf_counter() - start}
    if device == "cuda":
        cost["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    return step, cost


def _reset_memory(device: str) -> int:
    gc.collect()
    if device != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _seconds(step: Step, device: str, burst: int) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(burst):
        step()
    _wait(device)
    return (time.perf_counter() - start) / burst


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
