"""Charts as inline SVG, in the colours of the page, light or dark."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

INK, GRID = "#010101", "#020202"
"""Colours of text and of lines; like :data:`SERIES` they become those of the page."""
SERIES = tuple(f"#0300{index:02x}" for index in range(1, 7))
"""Colours of what is drawn, in their order; they become those of the page."""
_VARIABLES = {
    INK: "var(--ink)",
    GRID: "var(--line)",
    **{colour: f"var(--c{index})" for index, colour in enumerate(SERIES, start=1)},
}
"""What stands for the page's own colours while Matplotlib draws, which knows no CSS."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
}
_ON_WHITE: dict[Any, Any] = {
    f"{part}.{'color' if part != 'axes' else 'edgecolor'}": "#222222"
    for part in ("text", "xtick", "ytick", "axes")
} | {"axes.labelcolor": "#222222", "figure.facecolor": "white", "axes.facecolor": "white"}
_PICTURE_DPI = 160
_FALL = "#d1495b"
_SIZE = (4.6, 2.9)
"""Inches, at 72 points each: readable on a phone without being scaled down."""

Line = Sequence[tuple[float, float]]
"""Points of a line: x and y."""


@dataclass(frozen=True)
class Chart:
    """A chart as HTML.

    Attributes:
        title: above it.
        svg: the drawing.
        note: below it.
    """

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Point:
    """A network in a front.

    Attributes:
        name: of the network.
        cost: to the right is worse.
        value: above is better.
        spread: standard deviation of the value; 0 of a single run.
        published: whether the figures are another's.
    """

    name: str
    cost: float
    value: float
    spread: float = 0.0
    published: bool = False


def lines_chart(
    title: str, ylabel: str, lines: Mapping[str, Line], level: tuple[str, float] | None = None
) -> Chart:
    """Metrics over iterations.

    Args:
        title: of the chart.
        ylabel: what the values are, and their unit.
        lines: by what they are called.
        level: a name and a value that all of it is measured by, such as a target.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        for (name, line), colour in zip(lines.items(), SERIES, strict=False):
            x, y = zip(*line, strict=True)
            marker = "o" if len(line) == 1 else None
            axes.plot(x, y, color=colour, label=name, linewidth=1.5, marker=marker, markersize=4)
        if level:
            axes.axhline(level[1], color=INK, linewidth=1, linestyle="--", label=level[0])
        axes.set(xlabel="iteration", ylabel=ylabel)
        if len(lines) > 1 or level:
            figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return Chart(title, _svg(figure, title))


def front_chart(title: str, xlabel: str, ylabel: str, points: Sequence[Point]) -> Chart:
    """Networks by cost and value, numbered from 1 on in their order; those of others are hollow."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        for index, point in enumerate(points, start=1):
            colour = GRID if point.published else SERIES[0]
            axes.errorbar(
                point.cost,
                point.value,
                point.spread or None,
                fmt="o",
                capsize=3,
                color=colour,
                markerfacecolor="none" if point.published else colour,
                markeredgecolor=INK if point.published else colour,
            )
            place = (point.cost, point.value)
            axes.annotate(str(index), place, (4, 4), textcoords="offset points", fontsize=8)
        axes.margins(0.12)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        return Chart(title, _svg(figure, title))


@dataclass(frozen=True)
class Heat:
    """Values from 0 to 1 of every layer over the iterations.

    Attributes:
        title: of the chart.
        iterations: N, of the columns.
        values: (L, N), NaN where a layer has no such decision.
        fallen: layer, from 0 on, and column where a decision changed for the last time.
        note: what 0 and 1 are.
    """

    title: str
    iterations: Sequence[int]
    values: NDArray[np.float64]
    fallen: Sequence[tuple[int, int]]
    note: str

    def chart(self) -> Chart:
        """For a page."""
        with mpl.rc_context(_STYLE):
            return Chart(self.title, _svg(self._figure(), self.title), self.note)

    def picture(self) -> NDArray[np.uint8]:
        """By itself, on white: (H, W, 3) bytes in RGB."""
        with mpl.rc_context({**_STYLE, **_ON_WHITE}):
            figure = self._figure()
            figure.suptitle("\n".join([self.title, *self.note.split("; ")]), fontsize=8)
            figure.set_dpi(_PICTURE_DPI)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def _figure(self) -> Figure:
        iterations, count = self.iterations, len(self.values)
        figure, axes = _figure(height=max(2.0, 0.13 * count + 1))
        axes.grid(False)
        edges = (iterations[0], max(iterations[-1], iterations[0] + 1))
        axes.imshow(
            self.values,
            aspect="auto",
            vmin=0,
            vmax=1,
            cmap="PuBu",
            interpolation="nearest",
            extent=(edges[0], edges[1], count + 0.5, 0.5),
        )
        for layer, column in self.fallen:
            width = (edges[1] - edges[0]) / len(iterations)
            place = edges[0] + (column + 0.5) * width
            axes.plot(place, layer + 1, "o", ms=4, color=_FALL, markeredgecolor="white", mew=0.5)
        axes.set(xlabel="iteration", ylabel="searched layer")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return figure


@contextlib.contextmanager
def drawing(height: float = _SIZE[1]) -> Iterator[tuple[Figure, Axes, Callable[[str], str]]]:
    """A figure in the style of the page, its axes, and what makes the drawing of a title of it.

    Args:
        height: in inches.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(height)
        yield figure, axes, partial(_svg, figure)


def _figure(height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure, title: str) -> str:
    """The drawing without a size of its own, so that it takes the width that it is given."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # a style in the drawing would be one of the whole page
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same in every chart of a page
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    box = re.search(r'viewBox="[^"]*"', text)
    start = text.index(">") + 1
    size = box[0] if box else ""
    return f'<svg class="chart" role="img" aria-label="{escape(title)}" {size}>{text[start:]}'
