"""Evaluates a latency table: predicted against measured runtime of whole networks (Fig. 4)."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.files import write_json
from backbones.inference import ENGINES, Engine, make_engine
from backbones.inference.hardware import device_name
from backbones.inference.measurement import Measurement
from backbones.latency import LatencyTable, predict_runtime
from backbones.precisions import PRECISIONS, short_name
from detection.deployment import Deployment
from detection.engine.provenance import provenance
from search.profiling.journal import Journal
from search.profiling.measuring import measure, report_noise
from search.profiling.pace import anchor_items, drift, reference_item
from search.profiling.plots import plot_evaluation
from search.profiling.scores import scores_by_group, se_factors
from search.profiling.setting import MeasuredWith
from search.profiling.workload import Item, network_item, random_networks
from search.selection.runtime import runtime_entries
from search.space import SearchSpace

logger = logging.getLogger(__name__)

SEED = 2
"""Seed of the random networks that tables are evaluated on."""


@dataclass(frozen=True)
class Conditions:
    """Conditions under which the evaluation networks were measured.

    Attributes:
        versions: of the engine, by package.
        seed: of the random networks.
        rounds: visits to each.
        noise: median spread of all measurements; None where each was made once.
        warning: why they are not to be trusted; empty where nothing is known against them.
        drift: how much slower the machine was than when the table was made.
    """

    versions: Mapping[str, str]
    seed: int
    rounds: int
    noise: float | None
    warning: str = ""
    drift: float = 1.0


def table_engine(table: LatencyTable) -> Engine:
    """The engine that a table was made with, in its precision on the same device of this machine.

    Raises:
        UserError: if it is another device, or the engine is none of ours, not installed, or has
            not the table's precision.
    """
    if table.engine not in ENGINES:
        raise UserError(
            f"latency table '{table.name}' was measured with {table.engine} on a {table.device}; "
            f"only tables made with {', '.join(ENGINES)} can be measured again here"
        )
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    here = {device_name(device): device for device in devices}
    if table.device not in here:
        raise UserError(
            f"latency table '{table.name}' was measured on '{table.device}'; this machine is "
            f"'{', '.join(here)}': profile it with spnas profile"
        )
    precision = short_name(table.precision)
    if precision not in PRECISIONS:
        raise UserError(
            f"latency table '{table.name}' was measured in {table.precision}; only tables in "
            f"{', '.join(PRECISIONS.values())} can be measured again here"
        )
    engine = make_engine(table.engine, here[table.device], table.threads or 1, precision)
    engine.check_conversion()
    return engine


def evaluate_table(
    table: LatencyTable,
    space: SearchSpace,
    output: Path,
    networks: int = 100,
    seed: int = SEED,
    rounds: int = 16,
) -> dict[str, Any]:
    """Draws random networks, predicts them, measures them whole, and writes the comparison.

    Networks that the table's correction was fitted on are left out; some of them tell how much
    slower or faster the machine is than it was. What is measured is kept beside ``output`` until
    that is written, so that an interruption loses nothing.

    Args:
        table: made on this machine.
        space: the search space to draw from.
        output: the JSON file; the plot is put beside it as PNG.
        networks: how many; every other one without SE.
        seed: of the draw.
        rounds: visits to every network.

    Returns:
        What was written: the setting, ``scores``, ``networks`` and ``se_factors``.

    Raises:
        UserError: if the table does not cover the space, or was not made on this machine.
    """
    start = time.monotonic()
    trial = Trial.of(table, space, networks, seed)
    engine = table_engine(table)
    setting = {"table": table.to_dict(), "seed": seed, "rounds": rounds}
    journal = Journal(output.with_suffix(".partial"), setting)
    reference = reference_item(Deployment.of(table))
    found = measure(trial.items, reference, engine, journal, rounds)
    how = MeasuredWith.here(engine, rounds, (time.monotonic() - start) / 60)
    report = trial.judge(found, how, output)
    journal.remove()
    return report


@dataclass(frozen=True)
class Trial:
    """A table, and what is measured to judge it.

    Attributes:
        table: on trial.
        space: that it is for.
        seed: of the draw.
        networks: drawn, by the types of their layers; none that the correction was fitted on.
        anchors: some that it was fitted on, which tell the drift.
    """

    table: LatencyTable
    space: SearchSpace
    seed: int
    networks: Mapping[str, Architecture]
    anchors: Mapping[str, Item]

    @classmethod
    def of(cls, table: LatencyTable, space: SearchSpace, networks: int, seed: int) -> Trial:
        """Draws the networks.

        Raises:
            UserError: if the table does not cover the space, or the space has not as many.
        """
        runtime_entries(space, table)  # refuses a table that does not cover the space
        fitted = table.correction.networks if table.correction else {}
        drawn = random_networks(space, networks, seed, exclude=list(fitted))
        anchors = anchor_items(space, table, Deployment.of(table))
        return cls(table, space, seed, drawn, anchors)

    def _wholes(self) -> dict[str, Item]:
        deployment = Deployment.of(self.table)
        return {types: network_item(found, deployment) for types, found in self.networks.items()}

    @property
    def items(self) -> list[Item]:
        """All networks that are measured."""
        return [*self._wholes().values(), *self.anchors.values()]

    def judge(
        self, found: Mapping[str, Measurement], how: MeasuredWith, output: Path
    ) -> dict[str, Any]:
        """Writes the comparison.

        A table that was measured elsewhere, or otherwise, is judged with a warning that names both.

        Args:
            found: the measurements, by the items' keys.
            how: they were made.
            output: the JSON file; the plot is put beside it as PNG.
        """
        noise = report_noise(found, how.rounds)
        slower = drift(self.table, self.anchors, found)
        logger.info("The machine is %.3f × as slow as when the table was made", slower)
        other = how.unlike(self.table)
        if other:
            logger.warning("What table '%s' is judged by was %s", self.table.name, other)
        warning = "; ".join(filter(None, (other, how.warning(noise.warning))))
        measured = {types: found[item.key] for types, item in self._wholes().items()}
        conditions = Conditions(how.versions, self.seed, how.rounds, noise.median, warning, slower)
        return write_evaluation(self.table, self.space, self.networks, measured, conditions, output)


def write_evaluation(
    table: LatencyTable,
    space: SearchSpace,
    networks: Mapping[str, Architecture],
    measured: Mapping[str, Measurement],
    how: Conditions,
    output: Path,
) -> dict[str, Any]:
    """Compares what a table predicts with what was measured, and writes it with its plot.

    Args:
        table: on trial.
        space: that it is for.
        networks: none of which the table's correction was fitted on, by the types of their layers.
        measured: runtime of each.
        how: they were measured.
        output: the JSON file; the plot is put beside it as PNG.

    Returns:
        What was written: the setting, ``scores``, ``networks`` and ``se_factors``.
    """
    plain = dataclasses.replace(table, correction=None)
    rows = [
        {
            "layers": types,
            "measured": round(measured[types].runtime, 4),
            "spread": round(measured[types].spread, 4),
            "predicted": round(predict_runtime(network, table), 4),
            "plain_sum": round(predict_runtime(network, plain), 4),
        }
        for types, network in networks.items()
    ]
    report = {
        **provenance(threads=table.threads),
        "table": table.name,
        "table_source": table.source,
        "table_warning": table.warning,
        "correction_refused": table.correction_refused,
        "device": table.device,
        "engine": table.engine,
        "threads": table.threads,
        "precision": table.precision,
        "task": table.task,
        "input_size": list(table.input_size),
        "space": space.name,
        **dataclasses.asdict(how),
        "scores": scores_by_group(rows, how.drift),
        "se_factors": se_factors(runtime_entries(space, table).numpy(), space),
        "networks": rows,
    }
    write_json(output, report)
    plot_evaluation(report, output.with_suffix(".png"))
    return report
