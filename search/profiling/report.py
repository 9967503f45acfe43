"""How well latency tables predict whole networks, several reports in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate


def cautions(report: Mapping[str, Any]) -> list[str]:
    """What speaks against a table and against its evaluation, a line each.

    Args:
        report: what ``evaluate_table`` returned; older ones do not say.
    """
    found = {
        f"table '{report['table']}' is": report.get("table_warning"),
        f"table '{report['table']}' has no correction:": report.get("correction_refused"),
        f"what table '{report['table']}' was judged by is": report.get("warning"),
    }
    return [f"{what} {why}" for what, why in found.items() if why]


def latency_section(*reports: Mapping[str, Any]) -> str:
    """How well tables predict whole networks."""
    rows = []
    for report in reports:
        found, plain = report["scores"]["all"], report["scores"]["plain sum"]
        height, width = report["input_size"]
        rows.append(
            [
                f"`{report['table']}`: {report['task']}, {height}×{width}{_precision(report)}",
                f"{found['networks']}",
                f"{plain['mean_error']:.2f} %",
                f"**{found['mean_error']:.2f} %**",
                f"{report['scores']['as measured']['mean_error']:.2f} %",
                f"{found['rmse']:.2f} ms",
                f"{found['spearman']:.4f}",
            ]
        )
    headers = [
        *("table", "networks", "mean error, plain sum", "corrected", "corrected, as measured"),
        *("RMSE", "Spearman's ρ"),
    ]
    found = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    made = [f"`{report['command']}`; {report['table_source']}." for report in reports]
    threads = (f"{report['device']}, {report['threads']} thread" for report in reports)
    setting = f"{'; '.join(dict.fromkeys(threads))}."
    warnings = [f"{line}." for report in reports for line in cautions(report)]
    return "\n\n".join([found, setting, *warnings, *made])


def _precision(report: Mapping[str, Any]) -> str:
    """``, int8`` where a table is not in single precision; older reports do not say."""
    precision = report.get("precision", "float32")
    return "" if precision == "float32" else f", {precision}"
