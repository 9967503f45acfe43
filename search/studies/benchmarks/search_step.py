"""What a search step costs: time and peak memory beside the largest fixed network's step."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.errors import UserError
from backbones.latency import LatencyTable
from detection.engine.fused import update_options
from detection.engine.provenance import provenance
from search.selection.runtime import RuntimeModel
from search.space import SearchSpace
from search.studies.benchmarks.costs import precision_of
from search.studies.benchmarks.operations import LABELS, MAKERS, NETWORKS, operations_of
from search.studies.markdown import beside
from search.studies.markdown import table as markdown_table
from search.supernets.one_shot import OneShot

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class StepCost:
    """Cost of one training step.

    Attributes:
        seconds: median over the timed steps.
        peak_bytes: highest memory during a step, above what the process holds before the network
            is built: resident set on a CPU, allocated memory on a GPU.
        operations: that its forward and backward pass launch.
    """

    seconds: float
    peak_bytes: int
    operations: int


def make_step(
    network: str,
    space: SearchSpace,
    table: LatencyTable,
    device: torch.device,
    batch: int,
    size: int,
    precision: str = "float32",
    backend: str = "",
) -> Callable[[], None]:
    """One training step: forward, loss, backward, optimizer.

    Args:
        network: one of ``NETWORKS``; supernets have the runtime term, and multi-path ones take
            their two sides in turns (Eq. 8), of which this is the dearer one, over the weights.
        space: the search space.
        table: for the runtime term.
        device: where to train.
        batch: images per step.
        size: side of the images in pixels.
        precision: one of ``PRECISIONS``.
        backend: of ``torch.compile``; empty does not compile.
    """
    torch.manual_seed(0)
    runtime_model = RuntimeModel(space, table).to(device)
    model = MAKERS[network](space).to(device).to(memory_format=torch.channels_last).train()
    computed = precision_of(precision, device.type)
    update = update_options(torch.optim.SGD, computed)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, **update)
    images = torch.randn(batch, 3, size, size, device=device)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.randint(1000, (batch,), device=device)
    forward = torch.compile(model, backend=backend) if backend else model
    scaler = computed.scaler()

    def step() -> None:
        with computed.autocast():
            logits = forward(images)
        loss: Tensor = F.cross_entropy(logits.float(), targets)
        if isinstance(model, OneShot):
            loss = loss + 0.1 * runtime_model(model.decisions).log()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.take(optimizer)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def interleaved_seconds(steps: Sequence[Callable[[], None]], repeats: int) -> list[float]:
    """Median seconds of every step, run in turns so that all meet the same disturbances."""
    times: list[list[float]] = [[] for _ in steps]
    for index in range(repeats + 1):
        for step, record in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if index:  # the first round warms up
                record.append(time.perf_counter() - start)
    return [statistics.median(record) for record in times]


def peak_bytes(network: str, space: str, table: str, device: str, batch: int, size: int) -> int:
    """Peak memory of a few steps.

    PyTorch counts what it allocates on a GPU. On a CPU it is the median of three processes, as
    allocators vary.

    Raises:
        UserError: on a CPU of a system that does not tell a process its peak.
    """
    if device == "cuda":
        return _allocated_peak(network, space, table, batch, size)
    if not _STATUS.exists():
        raise UserError(
            f"the peak memory of a CPU is read from '{_STATUS}', which Linux alone has; run this "
            "there, or with --device cuda"
        )
    command = [sys.executable, "-m", "search.studies.benchmarks.search_step"]
    command += [network, space, table, str(batch), str(size)]
    runs = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)
    ]
    return statistics.median_low([int(output.split()[-1]) for output in runs])


def _allocated_peak(network: str, space: str, table: str, batch: int, size: int) -> int:
    """Highest memory that PyTorch allocates on the GPU, above what it holds before the network."""
    step_arguments = (SearchSpace.load(space), LatencyTable.load(table), torch.device("cuda"))
    make_step(network, *step_arguments, 2, 32)()  # allocates the libraries' workspaces
    gc.collect()
    before = torch.cuda.memory_allocated()
    step = make_step(network, *step_arguments, batch, size)
    torch.cuda.reset_peak_memory_stats()
    step()
    step()
    return torch.cuda.max_memory_allocated() - before


def _print_resident_peak(network: str, space: str, table: str, batch: str, size: str) -> None:
    step_arguments = (SearchSpace.load(space), LatencyTable.load(table), torch.device("cpu"))
    make_step(network, *step_arguments, 2, 32)()  # loads kernels and thread pools
    before = resident("VmRSS")
    step = make_step(network, *step_arguments, int(batch), int(size))
    step()
    step()
    print(resident("VmHWM") - before)


def resident(key: str) -> int:
    """A memory figure of this process in bytes, from the kernel."""
    with _STATUS.open(encoding="utf-8") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024


def search_step_report(
    space: str, table: str, device: str, batch: int, size: int, repeats: int
) -> dict[str, object]:
    """Both supernets against the largest fixed network, in one run.

    Returns:
        The setting, the cost of each, and its ratios to the largest network.
    """
    loaded = (SearchSpace.load(space), LatencyTable.load(table), torch.device(device))
    peaks = [peak_bytes(name, space, table, device, batch, size) for name in NETWORKS]
    steps = [make_step(name, *loaded, batch, size) for name in NETWORKS]
    seconds = interleaved_seconds(steps, repeats)
    counts = [operations_of(name, *loaded[:2]) for name in NETWORKS]
    costs = [StepCost(*cost) for cost in zip(seconds, peaks, counts, strict=True)]
    largest = costs[-1]
    return {
        **provenance(device),
        "batch": batch,
        "size": size,
        "repeats": repeats,
        **{
            name: {
                **asdict(cost),
                "time_ratio": cost.seconds / largest.seconds,
                "memory_ratio": cost.peak_bytes / largest.peak_bytes,
                "operations_ratio": cost.operations / largest.operations,
            }
            for name, cost in zip(NETWORKS, costs, strict=True)
        },
    }


def search_step_section(study: Mapping[str, Any]) -> str:
    """A training step of the supernets beside one of the largest fixed network."""
    counted = all("operations" in study[name] for name in LABELS)
    rows = [
        [
            label,
            _duration(study[name]["seconds"]),
            f"{study[name]['peak_bytes'] / 2**30:.2f} GiB",
            f"{study[name]['time_ratio']:.3f}",
            f"{study[name]['memory_ratio']:.3f}",
            *([f"{study[name]['operations']:,}"] if counted else []),
        ]
        for name, label in LABELS.items()
    ]
    setting = f"training step, {study['size']} px, batch {study['batch']}"
    headers = [setting, "time", "peak memory", "time, ratio", "memory, ratio"]
    headers += ["operations"] if counted else []
    return f"{markdown_table(headers, rows)}\n\n{beside(study)}"


def search_steps_section(studies: Sequence[Mapping[str, Any]]) -> str:
    """The tables of several batch sizes below each other."""
    return "\n\n".join(map(search_step_section, studies))


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


if __name__ == "__main__":
    _print_resident_peak(*sys.argv[1:])
