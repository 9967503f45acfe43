"""Profiles a search space on this machine: from measurements to a latency table."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backbones.architecture import Architecture
from backbones.inference import Engine
from backbones.inference.hardware import device_name
from backbones.inference.measurement import Measurement
from backbones.latency import LatencyTable, layer_runtimes
from backbones.precisions import PRECISIONS
from detection.deployment import Deployment
from search.profiling.correction import fit_correction, network_features
from search.profiling.evaluation import SEED, Conditions, write_evaluation
from search.profiling.journal import Journal
from search.profiling.measuring import FEW_ROUNDS, measure, report_noise
from search.profiling.pace import reference_item
from search.profiling.report import cautions
from search.profiling.scores import scores_table
from search.profiling.setting import MeasuredWith
from search.profiling.workload import (
    Item,
    constant_items,
    layer_items,
    network_item,
    random_networks,
    table_parts,
)
from search.space import SearchSpace

logger = logging.getLogger(__name__)

CORRECTION_SEED = 1
"""Seed of the random networks that the correction is fitted on; evaluation leaves them out."""


def profile_space(
    space: SearchSpace,
    engine: Engine,
    deployment: Deployment,
    output: Path,
    rounds: int = 16,
    correction_networks: int = 32,
    evaluation: Path | None = None,
    evaluation_networks: int = 100,
) -> LatencyTable:
    """Measures everything that a table of the space needs, and writes it to ``output``.

    What is measured is kept beside ``output`` until the table is written, so that an interrupted
    profile goes on where it stopped.

    With ``evaluation``, networks that the correction does not know are measured in the same turns,
    and so at the same pace of the machine: what is left is the error of the table alone.

    Args:
        space: the search space.
        engine: runs the layers.
        deployment: what the backbone is part of, and its image size.
        output: the table's JSON file; its name is the table's.
        rounds: visits to every item.
        correction_networks: random networks to fit the correction on; 0 leaves it out.
        evaluation: report to write on further networks, as ``evaluate_table`` does; None for none.
        evaluation_networks: how many.

    Raises:
        UserError: if an unfinished profile with another setting is in the way, or the space has
            not as many networks.
    """
    start = time.monotonic()
    further = evaluation_networks if evaluation else 0
    work = Workload.of(space, deployment, correction_networks, further)
    setting = _setting(space, engine, deployment, rounds)
    journal = Journal(output.with_suffix(".partial"), setting)
    found = measure(work.items, reference_item(deployment), engine, journal, rounds)
    how = MeasuredWith.here(engine, rounds, (time.monotonic() - start) / 60)
    table = write_table(work, found, how, output, evaluation)
    journal.remove()
    return table


@dataclass(frozen=True)
class Workload:
    """What is measured for a table.

    Attributes:
        space: the search space.
        deployment: what its networks are part of.
        networks: that the correction is fitted on, by the types of their layers.
        unseen: that the table is judged on, likewise.
    """

    space: SearchSpace
    deployment: Deployment
    networks: Mapping[str, Architecture]
    unseen: Mapping[str, Architecture]

    @classmethod
    def of(
        cls, space: SearchSpace, deployment: Deployment, correction: int, evaluation: int
    ) -> Workload:
        """With random networks, always the same.

        Args:
            space: the search space.
            deployment: what its networks are part of.
            correction: networks that the correction is fitted on.
            evaluation: networks that the table is judged on.

        Raises:
            UserError: if the space has not as many networks.
        """
        networks = random_networks(space, correction, CORRECTION_SEED)
        unseen = random_networks(space, evaluation, SEED, exclude=list(networks))
        return cls(space, deployment, networks, unseen)

    @property
    def items(self) -> list[Item]:
        """The parts of a table, and all networks."""
        wholes = [*self.networks.values(), *self.unseen.values()]
        return [
            *constant_items(self.space, self.deployment),
            *layer_items(self.space, self.deployment),
            *(network_item(network, self.deployment) for network in wholes),
        ]

    def wholes(
        self, networks: Mapping[str, Architecture], found: Mapping[str, Measurement]
    ) -> dict[str, Measurement]:
        """The measurements of networks, by the types of their layers."""
        return {
            types: found[network_item(network, self.deployment).key]
            for types, network in networks.items()
        }


def write_table(
    work: Workload,
    found: Mapping[str, Measurement],
    how: MeasuredWith,
    output: Path,
    evaluation: Path | None = None,
) -> LatencyTable:
    """Makes a table of what was measured, and writes it, and how it predicts unseen networks.

    Args:
        work: what was measured.
        found: the measurements, by the items' keys.
        how: they were made.
        output: the table's JSON file; its name is the table's.
        evaluation: report to write; None for none.
    """
    noise = report_noise(found, how.rounds)
    warning = how.warning(noise.warning)
    table = _table(work, how, output.stem, found)
    if work.networks:
        table = with_correction(table, work.networks, work.wholes(work.networks, found))
    source = _source(how, len(work.unseen))
    table = dataclasses.replace(table, source=source, noise=noise.median, warning=warning)
    table.save(output)
    if evaluation:
        measured = work.wholes(work.unseen, found)
        conditions = Conditions(how.versions, SEED, how.rounds, noise.median, warning)
        report = write_evaluation(table, work.space, work.unseen, measured, conditions, evaluation)
        logger.info("Wrote %s\n%s", evaluation, scores_table(report["scores"]))
        for line in cautions(report):
            logger.warning("%s", line)
    return table


def _source(how: MeasuredWith, unseen: int) -> str:
    rough = ", rough" if how.rounds < FEW_ROUNDS else ""
    judged = f", with the {unseen} networks that it is judged on" if unseen else ""
    return (
        f"{how.command}, {how.rounds} rounds{rough}; its last start took {how.minutes:.1f} "
        f"minutes{judged}"
    )


def _setting(
    space: SearchSpace, engine: Engine, deployment: Deployment, rounds: int
) -> dict[str, object]:
    return {
        "space": space.to_dict(),
        "device": device_name(engine.device),
        "engine": engine.name,
        "versions": engine.versions(),
        "threads": engine.threads,
        "precision": engine.precision,
        "task": deployment.task,
        "input_size": deployment.input_size,
        "fpn_channels": deployment.fpn_channels,
        "rounds": rounds,
    }


def _table(
    work: Workload, how: MeasuredWith, name: str, found: Mapping[str, Measurement]
) -> LatencyTable:
    """The table of the separately measured parts."""
    constants = [found[item.key] for item in constant_items(work.space, work.deployment)]
    constant, layers = table_parts(
        work.space,
        work.deployment,
        sum(part.runtime for part in constants),
        {key: round(cell.runtime, 5) for key, cell in found.items()},
        {key: round(cell.spread, 4) for key, cell in found.items()},
    )
    return LatencyTable(
        name=name,
        device=how.device,
        engine=how.engine,
        unit="ms",
        input_size=work.deployment.padded_size,
        constant=dataclasses.replace(constant, spread=max(part.spread for part in constants)),
        layers=layers,
        versions=how.versions,
        threads=how.threads,
        precision=PRECISIONS[how.precision],
        activation=work.space.activation,
        date=datetime.date.today().isoformat(),
    )


def with_correction(
    table: LatencyTable,
    networks: Mapping[str, Architecture],
    measured: Mapping[str, Measurement],
) -> LatencyTable:
    """The table with a correction fitted on whole networks, or with why it has none.

    Args:
        table: without a correction.
        networks: by the types of their layers.
        measured: runtime of each.
    """
    features = {}
    for types, architecture in networks.items():
        runtimes, _ = layer_runtimes(architecture, table)
        found_types = [architecture.layers[index].type for index in runtimes]
        features[types] = network_features(
            found_types, list(runtimes.values()), table.constant.runtime
        )
    wholes = [measured[types].runtime for types in networks]
    correction, refused = fit_correction(features, wholes, table.least)
    if refused:
        logger.warning(
            "The correction is left out, and networks are predicted by plain sums: %s. Raise "
            "--rounds or --networks, or measure on a quieter machine, if the sum is not good "
            "enough.",
            refused,
        )
    return dataclasses.replace(table, correction=correction, correction_refused=refused)
