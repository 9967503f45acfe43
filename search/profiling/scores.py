"""How well predictions of a latency table agree with what was measured, in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tabulate import tabulate

from search.profiling.workload import uses_se
from search.space import SearchSpace


def scores_by_group(
    rows: Sequence[Mapping[str, Any]], drift: float
) -> dict[str, dict[str, float | None]]:
    """:func:`scores` of all networks, of those with and without SE, and of the plain sum.

    Args:
        rows: measured and predicted runtimes.
        drift: how much slower the machine is than when the table was made. All groups but "as
            measured" are judged at the table's speed.
    """
    then = [{**row, "measured": row["measured"] / drift} for row in rows]
    with_se = [row for row in then if uses_se(row["layers"])]
    without = [row for row in then if not uses_se(row["layers"])]
    groups = {"all": then, "with SE": with_se, "without SE": without, "as measured": rows}
    found = {name: scores(group, "predicted") for name, group in groups.items() if len(group) > 1}
    return {**found, "plain sum": scores(then, "plain_sum")}


def scores(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, float | None]:
    """RMSE (ms), mean and largest absolute error (%), bias (%) and Spearman's ρ of ``key``.

    ρ is None where it is undefined: a table profiled in a hurry can predict one runtime for all.
    """
    predicted = np.array([row[key] for row in rows])
    measured = np.array([row["measured"] for row in rows])
    relative = 100 * (predicted / measured - 1)
    ranked = np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return {
        "networks": len(rows),
        "rmse": float(np.sqrt(np.mean((predicted - measured) ** 2))),
        "mean_error": float(np.mean(np.abs(relative))),
        "largest_error": float(np.max(np.abs(relative))),
        "bias": float(np.mean(relative)),
        "spearman": float(spearmanr(predicted, measured)[0]) if ranked else None,
    }


def scores_table(found: Mapping[str, Mapping[str, float | None]]) -> str:
    """What :func:`scores_by_group` returned, as a text table."""
    rows = [[name, *group.values()] for name, group in found.items()]
    headers = ["", *next(iter(found.values()))]
    return tabulate(rows, headers, tablefmt="github", floatfmt=".3f")


def se_factors(entries: np.ndarray, space: SearchSpace) -> dict[str, list[list[float]]]:
    """The SE scaling factors of Eq. 14, by ratio: for every layer the smallest, mean and largest.

    A table profiled in a hurry can have a candidate at 0, which SE scales by no factor: that is 1.

    Args:
        entries: (L, K, E, S) runtimes.
        space: the search space.
    """
    found: dict[str, list[list[float]]] = {}
    for index, ratio in enumerate(space.se_ratios):
        if ratio:
            plain = entries[..., 0]
            factors = np.divide(
                entries[..., index], plain, out=np.ones_like(plain), where=plain > 0
            ).reshape(len(entries), -1)
            columns = (factors.min(1), factors.mean(1), factors.max(1))
            found[f"{ratio:g}"] = np.stack(columns, 1).round(4).tolist()
    return found
