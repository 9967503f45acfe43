"""Networks that searches found on tables in two precisions, measured in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from search.space import SearchSpace


def measured_runtimes(
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
