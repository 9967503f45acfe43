"""What a GPU was asked, as the tables of a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from search.studies.benchmarks.classifier_step import LABELS as CLASSIFIERS
from search.studies.benchmarks.search_step import LABELS as NETWORKS
from search.studies.markdown import beside, table

Figures = Mapping[str, Any]

_LABELS = {**NETWORKS, **CLASSIFIERS}


def gpu_section(study: Mapping[str, Any]) -> str:
    """A table for every part that was measured, what failed, and where the figures are from."""
    texts = []
    for name, part in study["parts"].items():
        figures = part["figures"]
        tables = [TABLES[name](figures)] if figures else []
        failed = [f"- {line}" for line in failures(part)]
        texts += [*tables, *(["\n".join(failed)] if failed else []), beside(part)]
    return "\n\n".join(texts)


def failures(part: Mapping[str, Any]) -> list[str]:
    """The errors of a part and of its measurements, a line each."""
    own = [part["error"]] if part["error"] else []
    return [f"{part['title']}: {line}" for line in [*own, *_errors(part["figures"])]]


def _errors(figures: Figures, name: str = "") -> Iterator[str]:
    for key, value in figures.items():
        if key == "error":
            yield f"{name}: {value}"
        elif isinstance(value, Mapping):
            yield from _errors(value, f"{name}, {key}" if name else key)


def _well(figures: Figures) -> dict[str, Figures]:
    return {name: found for name, found in figures.items() if "error" not in found}


def _checks(figures: Figures) -> str:
    found = figures["checks"]
    rows = []
    for name, check in _well({k: v for k, v in found.items() if isinstance(v, Mapping)}).items():
        done, steps = check["steps"]
        first, last = check["losses"]
        seconds = " + ".join(f"{value:.0f} s" for value in check["seconds"])
        rows.append([name, f"{done} of {steps}", f"{first:.2f} → {last:.2f}", seconds])
    return table(["mixed precision", "stopped after step", "loss", "both halves"], rows)


def _steps(what: str) -> Callable[[Figures], str]:
    def tables(figures: Figures) -> str:
        rows = []
        for name, measured in _well(figures).items():
            for step, cost in _well(measured["steps"]).items():
                ratios = [
                    f"{cost[key]:.2f}" if key in cost else "–"
                    for key in ("time_ratio", "memory_ratio")
                ]
                label = _LABELS.get(step, step)
                rows.append([name, label, *_time_and_memory(cost), *ratios])
        size = next(iter(_well(figures).values()), {"size": ""})["size"]
        side = " × ".join(map(str, size)) if isinstance(size, list) else size
        headers = [f"{what}, {side} px", "of", "time", "peak memory"]
        return table([*headers, "time, ratio", "memory, ratio"], rows)

    return tables


def _time_and_memory(cost: Figures) -> list[str]:
    peak = cost.get("peak_bytes")
    return [
        f"{1000 * cost['seconds']:.1f} ms",
        "–" if peak is None else f"{peak / 2**30:.2f} GiB",
    ]


def _latency(figures: Figures) -> str:
    well = _well(figures)
    tables = []
    if "table" in well:
        found = well["table"]["scores"]
        rows = [
            [
                str(found["all"]["networks"]),
                f"{found['all']['mean_error']:.2f} %",
                f"{found['plain sum']['mean_error']:.2f} %",
                f"{found['all']['rmse']:.3f} ms",
                "–" if found["all"]["spearman"] is None else f"{found['all']['spearman']:.3f}",
            ]
        ]
        headers = ["networks that the table does not know", "mean error", "of the plain sum"]
        tables.append(table([*headers, "RMSE", "Spearman's ρ"], rows))
    if "search" in well:
        row = well["search"]
        cells = [f"{row[key]:.3f} ms" for key in ("target", "predicted", "measured")]
        tables.append(table(["searched for", "predicted", "measured"], [cells]))
    return "\n\n".join(tables)


def _recipes(figures: Figures) -> str:
    rows = []
    for name, start in _well(figures).items():
        if "hours" not in start:
            continue
        peak = start["peak_bytes"]
        rows.append(
            [
                name,
                str(start["batch"]),
                f"{1000 * start['seconds']:.0f} ms",
                f"{1000 * start['data_seconds']:.0f} ms",
                "–" if peak is None else f"{peak / 2**30:.2f} GiB",
                f"{start['hours']:.1f}",
                f"{start['hours_without_waiting']:.1f}",
            ]
        )
    headers = ["recipe", "images per GPU", "step", "of it waiting for data", "peak memory"]
    return table([*headers, "hours on 8 GPUs", "if data never wait"], rows)


TABLES: Mapping[str, Callable[[Figures], str]] = {
    "a": _checks,
    "b": _steps("training step"),
    "c": _steps("training step of `spnas_100`"),
    "d": _steps("Mask R-CNN"),
    "e": _latency,
    "f": _recipes,
}
"""By the letters of the parts."""
