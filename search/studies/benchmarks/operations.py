"""How many operations a step launches: what it costs on a device that is quicker than its host."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def count_operations(step: Callable[[], object]) -> int:
    """Elementary operations of a step: PyTorch's own that call no other one of them.

    They are those of the forward and the backward pass alike, with views and allocations. They are
    counted as the host launches them, so the same on any device that computes by the same ones.

    Args:
        step: run before, so that what is made once is there.
    """
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    return sum(
        event.name.startswith("aten::")
        and not any(child.name.startswith("aten::") for child in event.cpu_children)
        for event in profiler.events() or ()
    )
