"""Latency tables made by counting multiply-accumulates or parameters, without a device."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from torch import nn

from backbones.latency import LatencyTable
from detection.deployment import Deployment
from detection.report import count_macs, count_parameters
from search.profiling.workload import Item, constant_items, layer_items, table_parts
from search.space import SearchSpace

COUNTS: dict[str, tuple[str, Callable[[nn.Module, Item], float]]] = {
    "macs": ("MMACs", lambda module, item: count_macs(module, *item.shapes) / 1e6),
    "params": ("MParams", lambda module, _: count_parameters(module) / 1e6),
}
"""By name: the unit, and what a module costs in it."""


def load_table(name_or_path: str, space: SearchSpace, input_size: tuple[int, int]) -> LatencyTable:
    """A table by name or path, or one made by counting (``macs``, ``params``).

    Args:
        name_or_path: what ``SEARCH.LATENCY_TABLE`` names.
        space: whose layers are counted.
        input_size: height and width of the image that is counted at.

    Raises:
        UserError: if there is no such table.
    """
    if name_or_path in COUNTS:
        return counted_table(name_or_path, space, input_size)
    return LatencyTable.load(name_or_path)


@cache
def counted_table(name: str, space: SearchSpace, input_size: tuple[int, int]) -> LatencyTable:
    """What every candidate costs by counting: exact, as both counts are sums over layers.

    Args:
        name: ``macs`` (of a classifier of 1000 classes) or ``params``, in millions.
        space: the search space.
        input_size: height and width of the image in pixels.
    """
    unit, count = COUNTS[name]
    deployment = Deployment("classification", input_size)
    items = [*constant_items(space, deployment), *layer_items(space, deployment)]
    costs = {item.key: count(item.build().eval(), item) for item in items}
    constant = sum(costs[item.key] for item in constant_items(space, deployment))
    part, layers = table_parts(space, deployment, constant, costs)
    return LatencyTable(
        name=name,
        device="any",
        engine="counted",
        unit=unit,
        input_size=input_size,
        constant=part,
        layers=layers,
        activation=space.activation,
        source="search/profiling/counting.py",
    )
