"""Search methods compared, as tables: accuracy, runtime, and how far above chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.studies.markdown import beside, table


def study_table(study: Mapping[str, Any]) -> str:
    """Methods at targets: accuracy, loss and runtime, and how far above chance."""
    summary = sorted(study["summary"], key=lambda row: (row["target"], row["method"] == "random"))
    within = any(row.get("intra") is not None for row in summary)
    rows = [
        [
            f"`{row['method']}`",
            f"{row['target']:g} {study['unit']}",
            f"{row['seeds']}",
            f"{row['top1_mean']:.2f} ± {row['top1_std']:.2f}",
            f"{row['loss_mean']:.3f} ± {row['loss_std']:.3f}",
            f"{row['runtime_mean']:.2f} ± {row['runtime_std']:.2f}",
            f"{100 * row['furthest']:.2f} %",
            _margin(row["margin_top1"]),
            _margin(row["margin_loss"]),
            *(["–" if row["intra"] is None else f"{row['intra']:.2f}"] if within else []),
        ]
        for row in summary
    ]
    headers = [
        *("method", "target", "seeds", "held-out top-1 (%)", "held-out loss"),
        *(f"runtime ({study['unit']})", "furthest from target"),
        *("above random in top-1", "in loss"),
        *(["spread within a search (%)"] if within else []),
    ]
    return table(headers, rows)


def _margin(deviations: float | None) -> str:
    return "–" if deviations is None else f"{deviations:+.1f} σ"


def study_section(study: Mapping[str, Any]) -> str:
    """A study of search methods without its plot."""
    return f"{study_table(study)}\n\n{beside(study)}"


def importance_section(study: Mapping[str, Any]) -> str:
    """What thresholds are judged by, compared at one target under one recipe."""
    alive = ", ".join(f"`{name}` {100 * s:.0f} %" for name, s in study["live_thresholds"].items())
    found = study_section(study)
    return f"Thresholds with a gradient at step 0 of the full space: {alive}.\n\n{found}"
