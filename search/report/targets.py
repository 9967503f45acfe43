"""The networks of one search by runtime and AP, with their targets, the start and a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from search.report.charts import GRID, INK, SERIES, Chart, drawing

_MARKERS = {"found": ("o", SERIES[0]), "start": ("s", SERIES[1]), "baseline": ("D", SERIES[4])}
_NAMES = {"found": "found", "start": "the start", "baseline": "the baseline"}


@dataclass(frozen=True)
class Network:
    """A network in the plot.

    Attributes:
        number: beside its point.
        role: a key of the markers.
        value: AP in percent.
        predicted: runtime by the table; None where that does not cover it.
        measured: runtime measured; None where it was not.
    """

    number: int
    role: str
    value: float
    predicted: float | None
    measured: float | None


def targets_chart(
    title: str, xlabel: str, networks: Sequence[Network], targets: Sequence[float]
) -> Chart:
    """All in one plot: filled as predicted, hollow as measured, and a line at every target.

    Args:
        title: of the chart.
        xlabel: what the runtimes are, and their unit.
        networks: with a runtime or without; those without are left out.
        targets: of the search.
    """
    with drawing(height=3.3) as (figure, axes, svg):
        for target in targets:
            axes.axvline(target, color=INK, linewidth=0.8, linestyle=":")
        _front(axes, networks)
        for network in networks:
            _point(axes, network)
        axes.margins(0.12)
        axes.set(xlabel=xlabel, ylabel="AP (%)")
        roles = dict.fromkeys(network.role for network in networks)
        figure.legend(
            handles=[*map(_handle, roles), *_kinds(networks), *_line(targets)],
            loc="outside lower center",
            ncols=3,
            fontsize=8,
        )
        return Chart(title, svg(title))


def _front(axes: Axes, networks: Sequence[Network]) -> None:
    """A line through the networks found, in the order of their runtimes."""
    found = sorted(
        (runtime, network.value)
        for network in networks
        if network.role == "found" and (runtime := _place(network)) is not None
    )
    if len(found) > 1:
        axes.plot(*zip(*found, strict=True), color=SERIES[0], linewidth=1)


def _place(network: Network) -> float | None:
    return network.measured if network.predicted is None else network.predicted


def _point(axes: Axes, network: Network) -> None:
    marker, colour = _MARKERS[network.role]
    place = _place(network)
    if place is None:
        return
    if network.predicted is not None and network.measured is not None:
        ends = (network.predicted, network.measured)
        axes.plot(ends, (network.value,) * 2, color=GRID, linewidth=1, zorder=1)
    for runtime, face in ((network.measured, "none"), (network.predicted, colour)):
        if runtime is not None:
            axes.plot(runtime, network.value, marker, color=colour, markerfacecolor=face, ms=6)
    text = (place, network.value)
    axes.annotate(str(network.number), text, (5, 5), textcoords="offset points", fontsize=8)


def _handle(role: str) -> Line2D:
    marker, colour = _MARKERS[role]
    return Line2D([], [], marker=marker, color=colour, linestyle="", ms=6, label=_NAMES[role])


def _kinds(networks: Sequence[Network]) -> list[Line2D]:
    """What filled and hollow points are, where there are both."""
    kinds = [
        Line2D([], [], marker="o", color=INK, markerfacecolor=face, linestyle="", ms=5, label=name)
        for name, face, any_ in (
            ("predicted", INK, any(network.predicted is not None for network in networks)),
            ("measured", "none", any(network.measured is not None for network in networks)),
        )
        if any_
    ]
    return kinds if len(kinds) > 1 else []


def _line(targets: Sequence[float]) -> list[Line2D]:
    if not targets:
        return []
    return [Line2D([], [], color=INK, linewidth=0.8, linestyle=":", label="targets")]
