"""How networks in int8 differ from the same in float: order, costs of options, networks found."""

from __future__ import annotations

import dataclasses
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
from detection.engine.plain_yaml import load_with_bases
from search.profiling.evaluation import table_engine
from search.profiling.journal import Journal
from search.profiling.measuring import measure, report_noise
from search.profiling.pace import reference_item
from search.profiling.workload import choices_named, network_item
from search.selection.runtime import runtime_entries
from search.space import SearchSpace
from search.studies.markdown import beside
from search.studies.markdown import table as markdown_table


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
    evaluations: Sequence[Mapping[str, Any]],
    space: SearchSpace,
    folders: Sequence[Path],
    rounds: int,
    partial: Path,
) -> dict[str, Any]:
    """Sets runtimes in two precisions side by side, and measures what searches found in both.

    Args:
        tables: two, which differ in their precision alone; of this machine where ``folders`` has
            searches.
        evaluations: of both: the random networks measured for them, which are the same.
        space: that they cover.
        folders: of searches: for every seed one on each table.
        rounds: visits to each network that is measured.
        partial: keeps what is measured until both precisions are.

    Returns:
        ``tables``, ``engine`` and ``device``; ``networks``, every one with its layers and its
        runtimes (ms) by precision; ``rank``, Spearman's ρ between the precisions; ``ratio``;
        ``costs`` of options; and ``searches``.

    Raises:
        UserError: if the tables differ otherwise, the evaluations are of other tables or networks,
            or a seed lacks a search.
    """
    check_tables(tables)
    rows = evaluated_networks(tables, evaluations)
    found = paired_searches(folders, tables, space)
    measured = {
        short_name(table.precision): _measured(found, table, rounds, partial)
        for table in (tables if found else ())
    }
    return {
        "tables": {short_name(table.precision): table.name for table in tables},
        "engine": tables[0].engine,
        "device": tables[0].device,
        "rank": {how: rank(rows, how) for how in ("measured", "predicted")},
        "ratio": ratio(rows),
        "costs": {short_name(table.precision): option_costs(space, table) for table in tables},
        "searches": search_rows(found, measured, tables),
        "networks": rows,
    }


def evaluated_networks(
    tables: Sequence[LatencyTable], evaluations: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The networks that two evaluations share: their layers, and runtimes by precision in ms.

    Measured runtimes are at the pace that the machine had when the table was made.

    Raises:
        UserError: if an evaluation is of another table, or they share fewer than two networks.
    """
    by_layers: list[dict[str, Mapping[str, Any]]] = []
    for table, report in zip(tables, evaluations, strict=True):
        if report["table"] != table.name:
            raise UserError(
                f"an evaluation is of latency table '{report['table']}'; expected one of "
                f"'{table.name}', in the order of --tables"
            )
        by_layers.append({row["layers"]: row for row in report["networks"]})
    shared = [layers for layers in by_layers[0] if layers in by_layers[1]]
    if len(shared) < 2:
        raise UserError(
            f"the evaluations of '{tables[0].name}' and '{tables[1].name}' share {len(shared)} "
            "networks; evaluate both with the same --seed on networks of one space"
        )
    names = [short_name(table.precision) for table in tables]
    paces = [report["drift"] for report in evaluations]
    return [
        {
            "layers": layers,
            "measured": {
                name: round(rows[layers]["measured"] / pace, 4)
                for name, rows, pace in zip(names, by_layers, paces, strict=True)
            },
            "predicted": {
                name: rows[layers]["predicted"] for name, rows in zip(names, by_layers, strict=True)
            },
        }
        for layers in shared
    ]


def _measured(
    found: Sequence[Found], table: LatencyTable, rounds: int, partial: Path
) -> dict[str, Measurement]:
    """Runtimes in a table's setting, by the names of the networks."""
    deployment = Deployment.of(table)
    items = {
        one.name: network_item(one.network, deployment, f"network_{index}")
        for index, one in enumerate(found)
    }
    layers = {one.name: [str(layer_type) for layer_type in one.types] for one in found}
    setting = {"table": table.to_dict(), "networks": layers, "rounds": rounds}
    journal = Journal(partial / short_name(table.precision), setting)
    reference = reference_item(deployment)
    measurements = measure(list(items.values()), reference, table_engine(table), journal, rounds)
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

    Both are sums over all candidates that differ in this option alone, so large layers count more;
    as measured layer by layer, since a correction adds to every layer what its fit found.

    Returns:
        By the option: ``kernel 5``, ``expansion 6``, ``SE 0.25``.
    """
    entries = runtime_entries(space, dataclasses.replace(table, correction=None)).numpy()
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


def paired_searches(
    folders: Sequence[Path], tables: Sequence[LatencyTable], space: SearchSpace
) -> list[Found]:
    """The networks that searches found, by seed.

    Args:
        folders: of finished searches, or of their ``--eval-only`` with another table: their
            ``config.yaml`` names seed and table, ``results.json`` layers and accuracy.
        tables: that were searched on.
        space: that was searched.

    Raises:
        UserError: if a folder's search is on another table, or a seed has not one on each.
    """
    names = {table.name: short_name(table.precision) for table in tables}
    found = []
    for folder in folders:
        config = load_with_bases(str(folder / "config.yaml"))
        table = Path(config["SEARCH"]["LATENCY_TABLE"]).name.removesuffix(".json")
        if table not in names:
            raise UserError(
                f"'{folder}' is a search on latency table '{table}'; expected one on "
                f"{' or '.join(names)}"
            )
        row = read_json(folder / "results.json", "search")["search"]
        network = space.architecture(choices_named(space, " ".join(row["layers"])), "found")
        found.append(Found(config["SEED"], names[table], network, row.get("val", {}).get("top1")))
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
