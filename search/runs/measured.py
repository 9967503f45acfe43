"""The network that a search found, measured beside its prediction where that can be done."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.utils import comm

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.inference.measurement import NOISY
from backbones.latency import LatencyTable, predict_runtime
from backbones.precisions import short_name
from detection.deployment import Deployment, measured_runtime, measured_with
from search.profiling.evaluation import table_engine
from search.profiling.workload import choices_named
from search.space import SearchSpace

logger = logging.getLogger(__name__)

FAR = 10.0
"""Percent between prediction and measurement that are worth a warning."""


def in_precision(table: LatencyTable) -> str:
    """`` of networks in int8`` behind a table's name; nothing for single precision."""
    precision = short_name(table.precision)
    return "" if precision == "fp32" else f" of networks in {precision}"


def table_facts(table: LatencyTable) -> dict[str, Any]:
    """What of a table a result has to say, where there is something.

    Returns:
        ``precision`` where it is not single precision; ``table_warning`` where the table is not to
        be trusted, which is logged as well.
    """
    facts = {"precision": short_name(table.precision)} if in_precision(table) else {}
    if table.warning:
        logger.warning("%s", table.caution)
        facts["table_warning"] = table.warning
    return facts


def measured_row(space: SearchSpace, row: Mapping[str, Any], table: LatencyTable) -> dict[str, Any]:
    """:func:`measured_facts` of a row of ``results.json``; the main process alone measures."""
    if not comm.is_main_process():
        return {}
    choices = choices_named(space, " ".join(row["layers"]))
    return measured_facts(space.architecture(choices, row["architecture"]), table)


def measured_facts(architecture: Architecture, table: LatencyTable) -> dict[str, Any]:
    """Runtime of a network on the device of the table, in a few short visits.

    Building the network draws random numbers of its own: the caller's are left as they are.

    Returns:
        ``measured_runtime`` in ms, ``measured_with``, and ``measured_error``, that of the
        prediction in percent; nothing where the table is of another device, or of an engine that
        is not at hand.
    """
    try:
        engine = table_engine(table)
    except UserError:  # counted, of another device, or its engine is not installed
        return {}
    deployment = Deployment.of(table)
    try:
        with torch.random.fork_rng():
            found = measured_runtime(
                architecture,
                deployment,
                engine.name,
                engine.device,
                engine.threads,
                engine.precision,
            )
    except Exception as error:  # what was searched is worth more than its measurement
        logger.warning("The network found could not be measured: %s", error)
        return {}
    predicted = predict_runtime(architecture, table)
    off = 100 * (predicted / found.runtime - 1)
    how = measured_with(engine, deployment)
    told = (found.runtime, 100 * found.spread, predicted, off, how)
    logger.info("measured runtime %.3g ms ± %.1f %%, predicted %.3g ms (%+.1f %%): %s", *told)
    if abs(off) > FAR:
        logger.warning(
            "Latency table '%s' predicted %.3g ms, and the network found takes %.3g ms%s: the "
            "table is wrong, or the machine is busier or slower than when it was profiled. "
            "spnas evaluate-latency --table tells which.",
            table.name,
            predicted,
            found.runtime,
            ", measured on a noisy machine" if found.spread > NOISY else "",
        )
    return {
        "measured_runtime": round(found.runtime, 4),
        "measured_with": how,
        "measured_error": round(off, 2),
    }
