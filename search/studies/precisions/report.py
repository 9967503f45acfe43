"""The tables of the page on what int8 changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.studies.markdown import beside
from search.studies.markdown import table as markdown_table


def precisions_section(*studies: Mapping[str, Any]) -> str:
    """The page's tables: order, costs of options, and networks that searches found."""
    parts = [_order_table(studies), _costs_table(studies)]
    if any(study["searches"] for study in studies):
        parts.append(_searches_table(studies))
    return "\n\n".join([*parts, *map(beside, studies)])


def _order_table(studies: Sequence[Mapping[str, Any]]) -> str:
    headers = [
        *("engine", "networks", "runtime over float's, median", "smallest and largest"),
        *("ρ, measured", "ρ, by the tables"),
    ]
    rows = []
    for study in studies:
        low, middle, high = study["ratio"]
        ranks = (f"{study['rank'][how]:.3f}" for how in ("measured", "predicted"))
        spread = f"{low:.2f} to {high:.2f}"
        rows.append([study["engine"], str(len(study["networks"])), f"{middle:.2f}", spread, *ranks])
    return markdown_table(headers, rows)


def _costs_table(studies: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [study["engine"], precision, *(f"{factor:.2f} ×" for factor in costs.values())]
        for study in studies
        for precision, costs in study["costs"].items()
    ]
    options = next(iter(studies[0]["costs"].values()))
    return markdown_table(["engine", "precision", *options], rows)


def _searches_table(studies: Sequence[Mapping[str, Any]]) -> str:
    first, second = studies[0]["tables"]
    headers = [
        *("engine", "seed", "searched in", "top-1 (%)", f"measured in {first} (ms)"),
        *(f"measured in {second} (ms)", "layers unlike the other's"),
    ]
    rows = [
        [
            *(
                study["engine"],
                str(row["seed"]),
                row["searched_in"],
                "–" if row["top1"] is None else f"{row['top1']:.1f}",
            ),
            *(f"{row['measured'][name]:.2f}" for name in (first, second)),
            str(row["different_layers"]),
        ]
        for study in studies
        for row in study["searches"]
    ]
    return markdown_table(headers, rows)
