"""Part e: a latency table of the device, its error, and a search to a target on it, measured."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.files import read_json
from backbones.inference import Engine, make_engine
from backbones.latency import LatencyTable
from detection.deployment import Deployment
from detection.engine.results import results_part
from search.command_line.registry import tool_words
from search.profiling.networks import measure_architectures
from search.profiling.profiler import profile_space
from search.selection.runtime import RuntimeModel
from search.selection.target import runtime_range
from search.space import SearchSpace
from search.studies.benchmarks.costs import precision_options
from search.studies.benchmarks.gpu.runs import run_tool
from search.studies.benchmarks.gpu.setting import Figures, Measurement, Setting

ROUNDS, NETWORKS, UNSEEN = 3, 8, 50
"""Visits to everything, networks that the correction is fitted on, and networks to judge it by."""

TINY_ROUNDS, TINY_NETWORKS, TINY_UNSEEN = 1, 0, 2

EPOCHS = 2.0
"""Of the digits that a short run has, for the search."""

LIMIT = 60
"""Seconds that the search may take on a GPU."""


def measurements(setting: Setting) -> Iterator[Measurement]:
    """The table first, since the search is for it."""
    yield "table", partial(_profiled, setting)
    yield "search", partial(_searched, setting)


def _space(setting: Setting) -> SearchSpace:
    return SearchSpace.load("digits_small" if setting.tiny else "imagenet")


def _deployment(setting: Setting) -> Deployment:
    side = 32 if setting.tiny else 224
    return Deployment("classification", (side, side))


def _engine(setting: Setting) -> Engine:
    return make_engine("torch", setting.device, 1)


def _table_path(setting: Setting) -> Path:
    return setting.folder / "latency" / "table.json"


def _profiled(setting: Setting) -> Figures:
    rounds, networks, unseen = (
        (TINY_ROUNDS, TINY_NETWORKS, TINY_UNSEEN) if setting.tiny else (ROUNDS, NETWORKS, UNSEEN)
    )
    path = setting.fresh("latency") / "table.json"
    path.parent.mkdir()
    report = path.with_name("report.json")
    table = profile_space(
        _space(setting),
        _engine(setting),
        _deployment(setting),
        path,
        rounds,
        networks,
        report,
        unseen,
    )
    smallest, largest = runtime_range(_space(setting), RuntimeModel(_space(setting), table))
    return {
        "networks": unseen,
        "rounds": rounds,
        "range": [smallest, largest],
        "noise": table.noise,
        "scores": read_json(report, "report of the table")["scores"],
    }


def _searched(setting: Setting) -> Figures:
    """A short search on the digits to the middle of the range, and what it found, measured.

    Raises:
        UserError: if the search fails.
    """
    path, space, deployment = _table_path(setting), _space(setting), _deployment(setting)
    table = LatencyTable.load(str(path))
    target = round(sum(runtime_range(space, RuntimeModel(space, table))) / 2, 3)
    setting.prepare_digits()
    run = setting.fresh("latency_search")
    height, width = deployment.padded_size
    config = "digits_small" if setting.tiny else "digits"
    words = [
        *(*tool_words("search_net.py"), "--config-file", f"configs/search/{config}.yaml"),
        *(*setting.processes, "OUTPUT_DIR", str(run), "WANDB.ENABLED", "False"),
        *("MODEL.DEVICE", setting.device, *precision_options("float32")),
        *("SEARCH.LATENCY_TABLE", str(path), "SEARCH.DEPLOY_SIZE", f"[{height}, {width}]"),
        *("SEARCH.TARGET", str(target), "CLASSIFICATION.EPOCHS", str(EPOCHS)),
    ]
    limit = LIMIT if setting.device == "cuda" else 10 * LIMIT
    ended = run_tool(words, setting.environment(), run.with_suffix(".log"), lambda: False, limit)
    found = results_part(run, "search")
    if ended.code or found is None:
        raise UserError(f"the search ended with exit code {ended.code}: {ended.last_line}")
    architecture = Architecture.load(run / "architecture.json")
    rounds = TINY_ROUNDS if setting.tiny else 5 * ROUNDS
    (row,) = measure_architectures(
        [architecture], _engine(setting), deployment, rounds, table, space
    )
    names = {"error": "error_percent", "error_then": "error_percent_then"}  # `error` is a failure
    measured = {names.get(key, key): value for key, value in row.items()}
    return {"target": target, "seconds": ended.seconds, **measured}
