"""The benchmark with a known answer as tables: the truth, and the regret of the methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.studies.markdown import beside, table


def reliability_table(truth: Mapping[str, Any]) -> str:
    """How much of the truth is the architecture, and how much the seed."""
    labels = {"top1": ("top-1", " %", 2), "loss": ("cross entropy", "", 4)}
    rows = []
    for measure, found in truth["reliability"].items():
        label, unit, digits = labels[measure]
        rows.append(
            [
                f"held-out {label}",
                f"{found['architectures']:.{digits}f}{unit}",
                f"{found['seeds']:.{digits}f}{unit}",
                f"{found['ratio']:.1f}",
                f"{found['rank_correlation']:.2f}",
            ]
        )
    headers = [
        f"{truth['networks']} networks, {truth['seeds']} trainings of each",
        *("σ of architectures", "σ of seeds", "ratio", "Spearman's ρ of two seeds"),
    ]
    return table(headers, rows)


def regret_table(study: Mapping[str, Any]) -> str:
    """Methods by their regret: at every target, and over all."""
    chance = next(row for row in study["summary"] if row["method"] == "chance")
    targets = list(chance["regret_top1"])
    rows = []
    for row in sorted(study["summary"], key=lambda row: row["regret_top1_mean"]):
        searched = "seeds" in row
        spread = f" ± {row['regret_top1_std']:.2f}" if searched else ""
        rows.append(
            [
                f"`{row['method']}`" if searched else "chance, exactly",
                *(f"{row['regret_top1'][target]:.2f}" for target in targets),
                f"{row['regret_top1_mean']:.2f}{spread}",
                f"{row['regret_loss_mean']:.3f}",
                f"{100 * row['best_found']:.0f} %" if searched else "–",
                f"{row['cpu_seconds']:.1f} s" if searched else "–",
            ]
        )
    headers = [
        *("method", *(f"regret at {target} {study['unit']}" for target in targets)),
        *("over all", "in cross entropy", "best one found", "CPU time"),
    ]
    return table(headers, rows)


def known_answer_section(study: Mapping[str, Any]) -> str:
    """The benchmark with a known answer: the truth, and the methods' regret against it."""
    truth = study["truth"]
    seeds = max(row.get("seeds", 0) for row in study["summary"])
    note = f"Regret in points of top-1, mean over {seeds} seeds ± their standard deviation."
    tables = [reliability_table(truth), regret_table(study), note]
    return "\n\n".join([*tables, f"`{truth['command']}`, then", beside(study)])
