"""Profiles a search space on this machine: from measurements to a latency table."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from backbones.architecture import Architecture
from backbones.inference import Engine
from backbones.inference.hardware import device_name
from backbones.inference.measurement import Measurement
from backbones.latency import LatencyTable, layer_runtimes
from backbones.precisions import PRECISIONS
from detection.deployment import Deployment
from search.profiling.correction import fit_correction, network_features
from search.profiling.evaluation import SEED, Conditions, scores_table, write_evaluation
from search.profiling.journal import Journal
from search.profiling.measuring import FEW_ROUNDS, measure, report_noise
from search.profiling.pace import reference_item
from search.profiling.report import cautions
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
    networks = random_networks(space, correction_networks, CORRECTION_SEED)
    parts = [*constant_items(space, deployment), *layer_items(space, deployment)]
    wholes = {types: network_item(network, deployment) for types, network in networks.items()}
    further = evaluation_networks if evaluation else 0
    unseen = random_networks(space, further, SEED, exclude=list(networks))
    tests = {types: network_item(network, deployment) for types, network in unseen.items()}
    items = [*parts, *wholes.values(), *tests.values()]
    journal = Journal(output.with_suffix(".partial"), _setting(space, engine, deployment, rounds))
    found = measure(items, reference_item(deployment), engine, journal, rounds)
    noise = report_noise(found, rounds)
    table = _table(space, engine, deployment, output.stem, found)
    if networks:
        table = with_correction(table, networks, wholes, found)
    source = _source(rounds, (time.monotonic() - start) / 60, len(unseen))
    table = dataclasses.replace(table, source=source, noise=noise.median, warning=noise.warning)
    table.save(output)
    if evaluation:
        measured = {types: found[item.key] for types, item in tests.items()}
        how = Conditions(engine.versions(), SEED, rounds, noise.median, noise.warning)
        report = write_evaluation(table, space, unseen, measured, how, evaluation)
        logger.info("Wrote %s\n%s", evaluation, scores_table(report["scores"]))
        for line in cautions(report):
            logger.warning("%s", line)
    journal.remove()
    return table


def _source(rounds: int, minutes: float, unseen: int) -> str:
    rough = ", rough" if rounds < FEW_ROUNDS else ""
    judged = f", with the {unseen} networks that it is judged on" if unseen else ""
    return (
        f"tools/profile_latency.py, {rounds} rounds{rough}; its last start took {minutes:.1f} "
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
    space: SearchSpace,
    engine: Engine,
    deployment: Deployment,
    name: str,
    found: Mapping[str, Measurement],
) -> LatencyTable:
    """The table of the separately measured parts."""
    constants = [found[item.key] for item in constant_items(space, deployment)]
    constant, layers = table_parts(
        space,
        deployment,
        sum(part.runtime for part in constants),
        {key: round(cell.runtime, 5) for key, cell in found.items()},
        {key: round(cell.spread, 4) for key, cell in found.items()},
    )
    return LatencyTable(
        name=name,
        device=device_name(engine.device),
        engine=engine.name,
        unit="ms",
        input_size=deployment.padded_size,
        constant=dataclasses.replace(constant, spread=max(part.spread for part in constants)),
        layers=layers,
        versions=engine.versions(),
        threads=engine.threads,
        precision=PRECISIONS[engine.precision],
        activation=space.activation,
        date=datetime.date.today().isoformat(),
    )


def with_correction(
    table: LatencyTable,
    networks: Mapping[str, Architecture],
    items: Mapping[str, Item],
    found: Mapping[str, Measurement],
) -> LatencyTable:
    """The table with a correction fitted on whole networks, or with why it has none.

    Args:
        table: without a correction.
        networks: by the types of their layers.
        items: under which they were measured.
        found: the measurements.
    """
    features = {}
    for types, architecture in networks.items():
        runtimes, _ = layer_runtimes(architecture, table)
        found_types = [architecture.layers[index].type for index in runtimes]
        features[types] = network_features(
            found_types, list(runtimes.values()), table.constant.runtime
        )
    measured = [found[items[types].key].runtime for types in networks]
    correction, refused = fit_correction(features, measured, table.least)
    if refused:
        logger.warning(
            "The correction is left out, and networks are predicted by plain sums: %s. Raise "
            "--rounds or --networks, or measure on a quieter machine, if the sum is not good "
            "enough.",
            refused,
        )
    return dataclasses.replace(table, correction=correction, correction_refused=refused)
