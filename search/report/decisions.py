"""How the decisions of a search fell, from its metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.report.charts import Chart, Heat
from search.report.runs import Run

_KEY = re.compile(r"decisions/layer(\d+)_(kernel|expansion|se|keep)(?:_([\d.]+))?")
_PATH = re.compile(r"decisions/layer(\d+)_(.+)")
_TITLES = {
    "kernel": ("kernel size", "pale: the smallest kernel, dark: the largest"),
    "expansion": ("expansion ratio", "pale: the smallest expansion, dark: the largest"),
    "se": ("squeeze-and-excitation", "pale: none, dark: the largest ratio"),
    "keep": ("layer or skip", "pale: the layer is skipped, dark: it is kept"),
    "path": ("weight of the type that is ahead at the end", "pale: 0, dark: 1"),
}


@dataclass(frozen=True)
class Fall:
    """A decision that changed in the course of a search, for the last time.

    Attributes:
        iteration: the first one logged with the new option.
        layer: from 1 on.
        what: kind of decision.
        before: the option that was ahead until then.
        after: the option that stayed ahead.
    """

    iteration: int
    layer: int
    what: str
    before: str
    after: str


@dataclass(frozen=True)
class History:
    """Weights of the options of one kind of decision, of all layers.

    Attributes:
        kind: a key of ``_TITLES``.
        iterations: N that were logged.
        weights: by layer, from 1 on, (N, options).
        options: by layer, their names.
    """

    kind: str
    iterations: tuple[int, ...]
    weights: dict[int, NDArray[np.float64]]
    options: dict[int, tuple[str, ...]]

    def falls(self) -> list[Fall]:
        """The last change of every decision that changed at all."""
        found = []
        for layer, weights in self.weights.items():
            ahead = weights.argmax(1)
            changes = np.flatnonzero(np.diff(ahead))
            if len(changes):
                column = int(changes[-1]) + 1
                before, after = (self.options[layer][ahead[i]] for i in (column - 1, column))
                what = _TITLES[self.kind][0] if self.kind != "path" else "type"
                found.append(Fall(self.iterations[column], layer, what, before, after))
        return found

    def chart(self) -> Chart:
        """See :meth:`heat`; for a page."""
        return self.heat().chart()

    def picture(self) -> NDArray[np.uint8]:
        """See :meth:`heat`; by itself, (H, W, 3) bytes in RGB."""
        return self.heat().picture()

    def heat(self) -> Heat:
        """The weights as shades: the mean position of an option from 0, the smallest, to 1."""
        count = max(self.weights)
        values = np.full((count, len(self.iterations)), np.nan)
        for layer, weights in self.weights.items():
            options = weights.shape[1]
            if self.kind == "path":
                values[layer - 1] = weights[:, weights[-1].argmax()]
            else:
                values[layer - 1] = weights @ np.linspace(0, 1, options)
        columns = {iteration: index for index, iteration in enumerate(self.iterations)}
        fallen = [(fall.layer - 1, columns[fall.iteration]) for fall in self.falls()]
        title, note = _TITLES[self.kind]
        marks = "; a dot: the decision fell the other way, for the last time" if fallen else ""
        return Heat(title, self.iterations, values, fallen, note + marks)


def histories(run: Run) -> list[History]:
    """Every kind of decision that a search logged more than once.

    Steps of the search that were logged twice, before and after a kill, count once.
    """
    rows = {
        row["iteration"]: row
        for row in run.metrics
        if any(key.startswith("decisions/") for key in row)
    }
    if len(rows) < 2:
        return []
    iterations = tuple(sorted(rows))
    keys = list(dict.fromkeys(key for i in iterations for key in rows[i]))
    named = [match for key in keys if (match := _KEY.fullmatch(key))]
    grouped: dict[str, dict[int, list[tuple[str, str]]]] = {}
    for match in named:
        groups = grouped.setdefault(match[2], {}).setdefault(int(match[1]), [])
        groups.append((match[3] or "keep", match[0]))
    if not named:
        for path in (match for key in keys if (match := _PATH.fullmatch(key))):
            groups = grouped.setdefault("path", {}).setdefault(int(path[1]), [])
            groups.append((path[2], path[0]))
    found = [_history(kind, iterations, rows, grouped.get(kind, {})) for kind in _TITLES]
    return [history for history in found if history.weights]


def _history(
    kind: str,
    iterations: tuple[int, ...],
    rows: Mapping[int, Mapping[str, float]],
    layers: dict[int, list[tuple[str, str]]],
) -> History:
    weights, names = {}, {}
    for layer, options in layers.items():
        if kind not in ("keep", "path"):
            options = sorted(options, key=lambda option: float(option[0]))
        columns = [[float(rows[i].get(key, np.nan)) for _, key in options] for i in iterations]
        found = np.array(columns)
        names[layer] = tuple(name for name, _ in options)
        if kind == "keep":
            found = np.concatenate([1 - found, found], 1)
            names[layer] = ("skip", "keep")
        # a layer that cannot be skipped, or a space with one option, has nothing to decide
        if found.shape[1] > 1 and not (kind == "keep" and (found[:, 1] == 1).all()):
            weights[layer] = found
    return History(kind, iterations, weights, names)
