"""How many operations a step launches: what it costs on a device that is quicker than its host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

_OWN = "aten::"


def operations(step: Callable[[], object]) -> Counter[str]:
    """Elementary operations of a step, by name: PyTorch's own that call no other one of them.

    They are those of the forward and the backward pass alike, with views and allocations. They are
    counted as the host launches them, so the same on any device that computes by the same ones.

    Args:
        step: run before, so that what is made once is there.
    """
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    return Counter(
        event.name.removeprefix(_OWN)
        for event in profiler.events() or ()
        if event.name.startswith(_OWN)
        and not any(child.name.startswith(_OWN) for child in event.cpu_children)
    )
