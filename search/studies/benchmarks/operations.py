"""How many operations a step launches: what it costs on a device that is quicker than its host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from backbones.latency import LatencyTable
from backbones.network import build_classifier
from detection.engine.provenance import provenance
from search.selection.runtime import RuntimeModel
from search.space import SearchSpace
from search.studies.markdown import beside
from search.studies.markdown import table as markdown_table
from search.supernets.multi_path import MultiPathSupernet
from search.supernets.one_shot import OneShot
from search.supernets.single_path import Supernet

_OWN = "aten::"

NETWORKS = ("supernet", "multi_path", "largest")
"""The single-path supernet; the multi-path one at half width, as in the paper (Sec. VII-A), since
at full width it needs several times the memory of most machines; and the largest fixed network."""

LABELS = {
    "supernet": "single-path supernet",
    "multi_path": "multi-path supernet, half width",
    "largest": "largest fixed network",
}

MAKERS: dict[str, Callable[[SearchSpace], nn.Module]] = {
    "supernet": Supernet,
    "multi_path": lambda space: MultiPathSupernet(space.scaled(0.5)),
    "largest": lambda space: build_classifier(space.largest()),
}


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


def operations_of(network: str, space: SearchSpace, table: LatencyTable) -> int:
    """Operations of a step of training on a CPU, forward and backward, whatever the images' size.

    Args:
        network: one of ``NETWORKS``.
        space: the search space.
        table: for the runtime term of supernets.
    """
    model, runtime_model = MAKERS[network](space).train(), RuntimeModel(space, table)
    images, targets = torch.randn(2, 3, 32, 32), torch.randint(1000, (2,))

    def step() -> None:
        loss: Tensor = F.cross_entropy(model(images), targets)
        if isinstance(model, OneShot):
            loss = loss + 0.1 * runtime_model(model.decisions).log()
        loss.backward()

    return _counted(step, model).total()


def deciding(space: SearchSpace, table: LatencyTable, dropout: float = 0.0) -> Counter[str]:
    """Operations of deciding in a single-path supernet and of the runtime term, by name.

    Args:
        space: the search space.
        table: for the runtime.
        dropout: of subsets.
    """
    supernet, runtime_model = Supernet(space, 2).train(), RuntimeModel(space, table)
    supernet.subset_dropout = dropout

    def step() -> None:
        supernet.decide()
        runtime_model(supernet.decisions).log().backward()

    return _counted(step, supernet)


def operations_report(space: str, table: str) -> dict[str, object]:
    """The operations of a step of every network, and of deciding alone."""
    loaded = SearchSpace.load(space), LatencyTable.load(table)
    counts = {name: operations_of(name, *loaded) for name in NETWORKS}
    return {
        **provenance(),
        "space": space,
        "operations": counts,
        "ratios": {name: count / counts["largest"] for name, count in counts.items()},
        "deciding": deciding(*loaded).total(),
        "deciding_with_dropout": deciding(*loaded, dropout=0.4).total(),
    }


def operations_section(study: Mapping[str, Any]) -> str:
    """What a step launches, beside the largest fixed network's."""
    rows = [
        [label, f"{study['operations'][name]:,}", f"{study['ratios'][name]:.3f}"]
        for name, label in LABELS.items()
    ]
    headers = [f"step, space '{study['space']}'", "operations", "ratio"]
    alone = (
        f"Deciding and the runtime term alone: {study['deciding']}, and with subset dropout "
        f"{study['deciding_with_dropout']}."
    )
    # they are the same on every machine
    return f"{markdown_table(headers, rows)}\n\n{alone} {beside(study)}"


def _counted(step: Callable[[], object], model: nn.Module) -> Counter[str]:
    step()
    model.zero_grad(set_to_none=True)
    return operations(step)
