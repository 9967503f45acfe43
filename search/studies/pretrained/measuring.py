"""The networks of a study, measured on the device that they were chosen for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.files import read_json, write_json
from detection.deployment import Deployment
from search.profiling.evaluation import table_engine
from search.profiling.networks import measure_architectures
from search.profiling.pace import anchor_items
from search.profiling.workload import choices_named
from search.runs.build import build_latency_table
from search.space import SearchSpace
from search.start.narrowing import narrowed
from search.start.seed import seed_of
from search.studies.pretrained.grounds import ground_of
from search.studies.pretrained.study import WIDTH, summary

logger = logging.getLogger(__name__)


def measure_networks(cfg: CfgNode, output: Path, rounds: int) -> dict[str, Any]:
    """Measures every network of a study in turns with the others, and keeps it with its trials.

    Args:
        cfg: of the study's supernets.
        output: JSON file of the study; its trials get ``measured_runtime`` in the table's unit, and
            ``measured_error``, that of the prediction in percent.
        rounds: visits to each network.

    Returns:
        What the file then holds.

    Raises:
        UserError: if its table is of another device.
    """
    study: dict[str, Any] = read_json(output, "study")
    seed = seed_of(cfg)
    assert seed is not None, "a study starts from a network"
    space, start = seed.space, seed.space.architecture(seed.choices, "start")
    table = build_latency_table(cfg, space)
    named = list(dict.fromkeys(trial["layers"] for trial in study["trials"]))
    networks = [
        _network(space, start, layers, f"network{index}") for index, layers in enumerate(named)
    ]
    deployment = Deployment.of(table)
    own: SearchSpace | None = space
    try:
        anchor_items(space, table, deployment)
    except UserError:
        own = None
        logger.warning(
            "Latency table '%s' was made for another space: errors of predictions have in them by "
            "how much this machine is slower or faster than then",
            table.name,
        )
    rows = measure_architectures(networks, table_engine(table), deployment, rounds, table, own)
    found = dict(zip(named, rows, strict=True))
    for trial in study["trials"]:
        row = found[trial["layers"]]
        trial["measured_runtime"] = round(row["measured"], 4)
        if (error := row.get("error_then", row["error"])) is not None:
            trial["measured_error"] = round(error, 2)
    scores = ground_of(cfg).scores
    study["summary"] = summary(scores, study["start_runtime"], study["trials"])
    write_json(output, study)
    return study


def _network(space: SearchSpace, start: Architecture, layers: str, name: str) -> Architecture:
    """Of a trial's ``layers``: types, or the factor by which the start is narrowed."""
    if layers.startswith(WIDTH):
        return narrowed(start, float(layers.removeprefix(WIDTH)))
    return space.architecture(choices_named(space, layers), name)
