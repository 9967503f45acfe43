"""How networks in int8 differ from the same in float: order, costs of options, networks found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.files import read_json
from backbones.inference.measurement import Measurement
from backbones.latency import LatencyTable, predict_runtime
from backbones.layer_types import LayerType
from backbones.precisions import short_name
from detection.deployment import Deployment
from search.profiling.evaluation import table_engine
from search.profiling.journal import Journal
from search.profiling.measuring import measure, report_noise
from search.profiling.pace import reference_item
from search.profiling.workload import network_item, random_networks
from search.selection.runtime import runtime_entries
from search.space import SearchSpace
from search.studies.markdown import beside
from search.studies.markdown import table as markdown_table

SEED = 3
"""Of the random networks: others than tables are fitted on and judged by."""


def check_tables(tables: Sequence[LatencyTable]) -> None:
    """Insists on two tables that differ in their precision alone.

    Raises:
        UserError: naming what is the same, or what differs.
    """
    first, second = tables
    if first.precision == second.precision:
        raise UserError(
            f"latency tables '{first.name}' and '{second.name}' are both in "
            f"{short_name(first.precision)}; name tables of two precisions"
        )
    for what in ("device", "engine", "threads", "task", "input_size", "unit"):
        if getattr(first, what) != getattr(second, what):
            raise UserError(
                f"latency tables '{first.name}' and '{second.name}' differ in {what} "
                f"({getattr(first, what)} and {getattr(second, what)}); profile both alike, but "
                "for --precision"
            )


def precision_study(
    tables: Sequence[LatencyTable],
    space: SearchSpace,
    found: Sequence[Path],
    networks: int,
    rounds: int,
    folder: Path,
) -> dict[str, Any]:
    """Measures random networks, and those that searches found, in both precisions.

    Args:
        tables: two of this machine, which differ in their precision alone.
        space: that they cover.
        found: folders of searches: for every seed one on each table.
        networks: random ones, every other one without SE.
        rounds: visits to each.
        folder: keeps what is measured until both precisions are.

    Returns:
        ``tables``, ``engine`` and ``device``; ``networks``, every one with its layers and its
        runtimes (ms) by precision; ``rank``, Spearman's ρ between the precisions; ``costs`` of
        options; and ``searches``.
    """
    check_tables(tables)
    fitted = [types for table in tables if table.correction for types in table.correction.networks]
    drawn = random_networks(space, networks, SEED, exclude=fitted)
    searched = paired_searches(found, tables)
    architectures = {**drawn, **{one.name: one.network for one in searched}}
    measured = {
        short_name(table.precision): _measured(architectures, table, rounds, folder)
        for table in tables
    }
    rows = [
        {"layers": types, **_runtimes(types, network, measured, tables)}
        for types, network in drawn.items()
    ]
    return {
        "tables": {short_name(table.precision): table.name for table in tables},
        "engine": tables[0].engine,
        "device": tables[0].device,
        "rank": {how: rank(rows, how) for how in ("measured", "predicted")},
        "ratio": ratio(rows),
        "costs": {short_name(table.precision): option_costs(space, table) for table in tables},
        "searches": search_rows(searched, measured, tables),
        "networks": rows,
    }


def _measured(
    architectures: Mapping[str, Architecture], table: LatencyTable, rounds: int, folder: Path
) -> dict[str, Measurement]:
    """Runtimes in a table's setting, by the names of the networks."""
    deployment = Deployment.of(table)
    items = {
        name: network_item(network, deployment, f"network_{index}")
        for index, (name, network) in enumerate(architectures.items())
    }
    setting = {"table": table.to_dict(), "networks": list(items), "rounds": rounds}
    journal = Journal(folder / short_name(table.precision), setting)
    engine = table_engine(table)
    measurements = measure(
        list(items.values()), reference_item(deployment), engine, journal, rounds
    )
    report_noise(measurements, rounds)
    return {name: measurements[item.key] for name, item in items.items()}


def rank(rows: Sequence[Mapping[str, Any]], how: str) -> float:
    """Spearman's ρ of ``measured`` or ``predicted`` runtimes between the two precisions."""
    first, second = zip(*(row[how].values() for row in rows), strict=True)
    return round(float(spearmanr(first, second)[0]), 4)


def ratio(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Smallest, median and largest runtime in the second precision over that in the first."""
    ratios = [second / first for first, second in (row["measured"].values() for row in rows)]
    return np.quantile(ratios, [0, 0.5, 1]).round(4).tolist()


def option_costs(space: SearchSpace, table: LatencyTable) -> dict[str, float]:
    """Runtime with an option over runtime with the first one of its axis, over all layers.

    Both are sums over all candidates that differ in this option alone, so large layers count more.

    Returns:
        By the option: ``kernel 5``, ``expansion 6``, ``SE 0.25``.
    """
    entries = runtime_entries(space, table).numpy()
    axes = {
        "kernel": (1, space.kernel_sizes),
        "expansion": (2, space.expansions),
        "SE": (3, space.se_ratios),
    }
    found = {}
    for name, (axis, options) in axes.items():
        sums = entries.sum(tuple(other for other in range(4) if other != axis))
        for option, total in zip(options[1:], sums[1:], strict=True):
            found[f"{name} {option:g}"] = round(float(total / sums[0]), 4)
    return found


@dataclass(frozen=True)
class Found:
    """The network that a search found.

    Attributes:
        seed: of the search.
        precision: of the table that it was searched on.
        network: its description.
        top1: accuracy with the supernet's weights, in percent; None where it was not judged.
    """

    seed: int
    precision: str
    network: Architecture
    top1: float | None

    @property
    def name(self) -> str:
        """Tells it from all others."""
        return f"found in {self.precision}, seed {self.seed}"

    @property
    def types(self) -> list[LayerType]:
        """Of its layers."""
        return [layer.type for layer in self.network.layers]


def paired_searches(folders: Sequence[Path], tables: Sequence[LatencyTable]) -> list[Found]:
    """The networks that searches found, by seed.

    Args:
        folders: of finished searches: their ``architecture.json``, whose provenance names seed and
            table, and ``results.json``.
        tables: that were searched on.

    Raises:
        UserError: if a folder's search is on another table, or a seed has not one on each.
    """
    names = {table.name: short_name(table.precision) for table in tables}
    found = []
    for folder in folders:
        network = Architecture.load(folder / "architecture.json")
        table = network.provenance.get("latency_table")
        if table not in names:
            raise UserError(
                f"'{folder}' is a search on latency table '{table}'; expected one on "
                f"{' or '.join(names)}"
            )
        scores = read_json(folder / "results.json", "search").get("search", {}).get("val", {})
        seed = int(network.provenance.get("seed", 0))
        found.append(Found(seed, names[table], network, scores.get("top1")))
    made = [(one.seed, one.precision) for one in found]
    for seed in sorted({one.seed for one in found}):
        for precision in names.values():
            if made.count((seed, precision)) != 1:
                raise UserError(
                    f"{made.count((seed, precision))} searches of seed {seed} on a table in "
                    f"{precision}; name one for each table and seed"
                )
    return sorted(found, key=lambda one: (one.seed, one.precision))


def search_rows(
    found: Sequence[Found],
    measured: Mapping[str, Mapping[str, Measurement]],
    tables: Sequence[LatencyTable],
) -> list[dict[str, Any]]:
    """Every network found with its runtimes, and how many layers its pair has otherwise."""
    rows = []
    for one in found:
        (other,) = (its for its in found if its.seed == one.seed and its is not one)
        pairs = zip(one.types, other.types, strict=True)
        rows.append(
            {
                "seed": one.seed,
                "searched_in": one.precision,
                "layers": " ".join(map(str, one.types)),
                "different_layers": sum(ours != theirs for ours, theirs in pairs),
                "top1": one.top1,
                **_runtimes(one.name, one.network, measured, tables),
            }
        )
    return rows


def _runtimes(
    name: str,
    network: Architecture,
    measured: Mapping[str, Mapping[str, Measurement]],
    tables: Sequence[LatencyTable],
) -> dict[str, dict[str, float]]:
    """``measured`` and ``predicted`` runtime of a network by precision, in ms."""
    return {
        "measured": {how: round(by[name].runtime, 4) for how, by in measured.items()},
        "predicted": {
            short_name(table.precision): round(predict_runtime(network, table), 4)
            for table in tables
        },
    }


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
