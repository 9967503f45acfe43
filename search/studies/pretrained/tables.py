"""Networks of one adapted supernet compared, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.studies.markdown import beside, table

_TITLES = {
    "top1": "top-1 (%)",
    "loss": "loss",
    "box_AP": "box AP",
    "box_APs": "box AP_S",
    "box_APm": "box AP_M",
    "box_APl": "box AP_L",
    "mask_AP": "mask AP",
    "mask_APs": "mask AP_S",
    "mask_APm": "mask AP_M",
    "mask_APl": "mask AP_L",
}

_DISTANCES = {"furthest": "off target (%)", "measured_furthest": "off measured (%)"}


def study_table(study: Mapping[str, Any]) -> str:
    """Rows at parts of the start's runtime: runtime, scores, and how far above the controls.

    Runtimes are means of predictions; beside them is the largest distance of any network of the row
    from its target, and of its prediction from its measurement where there is one.
    """
    summary = sorted(study["summary"], key=lambda row: (-row["part"], -row[_first(study)]))
    scores = [name for name in _TITLES if f"{name}_mean" in summary[0]]
    distances = [name for name in _DISTANCES if any(name in row for row in summary)]
    controls = [c for c in ("random", "drop", "blind") if any(c in r["margins"] for r in summary)]
    rows = [
        [
            f"`{row['row']}`",
            f"{row['part']:g} ×",
            str(row["networks"]),
            f"{row['runtime_mean']:.2f}",
            *(_percent(row, name) for name in distances),
            *(_score(row, name) for name in scores),
            *(_margin(row["margins"].get(control)) for control in controls),
        ]
        for row in summary
    ]
    headers = [
        *("network", "target", "networks", f"runtime ({study['unit']})"),
        *(_DISTANCES[name] for name in distances),
        *(_TITLES[name] for name in scores),
        *(f"above `{control}`" for control in controls),
    ]
    return table(headers, rows)


def study_section(study: Mapping[str, Any]) -> str:
    """The table with the command and the hardware behind it."""
    return f"{study_table(study)}\n\n{beside(study)}"


def _first(study: Mapping[str, Any]) -> str:
    return "top1_mean" if "top1_mean" in study["summary"][0] else "box_AP_mean"


def _score(row: Mapping[str, Any], name: str) -> str:
    mean = f"{row[f'{name}_mean']:.2f}"
    return mean if row["networks"] == 1 else f"{mean} ± {row[f'{name}_std']:.2f}"


def _percent(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.1f}" if name in row else "–"


def _margin(deviations: float | None) -> str:
    return "–" if deviations is None else f"{deviations:+.1f} σ"
