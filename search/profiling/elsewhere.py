"""Profiles and evaluations whose models are converted here and timed on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.files import write_json
from backbones.inference import Engine, make_engine
from backbones.latency import LatencyTable
from backbones.precisions import short_name
from detection.deployment import Deployment
from search.command_line.registry import tool_command
from search.profiling.evaluation import Trial
from search.profiling.pace import reference_item
from search.profiling.prepared import collected, prepare, prepared_setting
from search.profiling.profiler import Workload, write_table
from search.space import SearchSpace

_SPACE, _TABLE = "space.json", "table.json"


def prepare_table(
    folder: Path,
    space: SearchSpace,
    engine: Engine,
    deployment: Deployment,
    device: str = "cpu",
    threads: int = 1,
    rounds: int = 16,
    correction_networks: int = 32,
    evaluation_networks: int = 0,
) -> None:
    """Writes what ``profile_space`` would measure into a folder that is timed elsewhere.

    Args:
        folder: to fill; see :func:`search.profiling.prepared.prepare`.
        space: the search space.
        engine: converts.
        deployment: what the backbone is part of, and its image size.
        device: ``cpu`` or ``cuda``, of the other machine.
        threads: of one inference there.
        rounds: visits to every item.
        correction_networks: as of ``profile_space``.
        evaluation_networks: that the table is judged on; 0 for no report.

    Raises:
        UserError: as ``prepare``; if the space has not as many networks.
    """
    work = Workload.of(space, deployment, correction_networks, evaluation_networks)
    setting = {
        "makes": "table",
        "space": space.to_dict(),
        "task": deployment.task,
        "input_size": list(deployment.input_size),
        "fpn_channels": deployment.fpn_channels,
        "networks": correction_networks,
        "evaluation_networks": evaluation_networks,
    }
    reference = reference_item(deployment)
    prepare(folder, work.items, reference, engine, setting, device, threads, rounds)
    _write(folder, space)


def collect_table(folder: Path, output: Path, evaluation: Path | None = None) -> LatencyTable:
    """Makes the table of what was measured elsewhere, as ``profile_space`` does here.

    Args:
        folder: of :func:`prepare_table`, with the measurements.
        output: the table's JSON file; its name is the table's.
        evaluation: report to write on the networks that it is judged on; None for none.

    Raises:
        UserError: if the folder is of something else, is not measured to its end, or has no
            networks to judge the table on.
    """
    setting = _setting(folder, "table", "evaluate_latency.py")
    if evaluation and not setting["evaluation_networks"]:
        raise UserError(
            f"'{folder}' has no networks for --evaluation; prepare it with --evaluation as well"
        )
    height, width = setting["input_size"]
    deployment = Deployment(setting["task"], (height, width), fpn_channels=setting["fpn_channels"])
    space = SearchSpace.load(folder / _SPACE)
    work = Workload.of(space, deployment, setting["networks"], setting["evaluation_networks"])
    found, how = collected(folder)
    return write_table(work, found, how, output, evaluation)


def prepare_evaluation(
    folder: Path, table: LatencyTable, space: SearchSpace, networks: int, seed: int, rounds: int
) -> None:
    """Writes what ``evaluate_table`` would measure into a folder that is timed elsewhere.

    Args:
        folder: to fill; see :func:`search.profiling.prepared.prepare`.
        table: of the other machine.
        space: to draw networks from.
        networks: how many.
        seed: of the draw.
        rounds: visits to every network.

    Raises:
        UserError: as ``prepare``; if the table does not cover the space.
    """
    trial = Trial.of(table, space, networks, seed)
    engine = make_engine(table.engine, precision=short_name(table.precision))
    setting = {
        "makes": "evaluation",
        "table": table.to_dict(),
        "space": space.to_dict(),
        "networks": networks,
        "seed": seed,
    }
    reference = reference_item(Deployment.of(table))
    threads = table.threads or 1
    prepare(folder, trial.items, reference, engine, setting, "cpu", threads, rounds)
    _write(folder, space, table)


def collect_evaluation(folder: Path, output: Path) -> dict[str, Any]:
    """Judges a table by what was measured elsewhere, as ``evaluate_table`` does here.

    Args:
        folder: of :func:`prepare_evaluation`, with the measurements.
        output: the JSON file; the plot is put beside it as PNG.

    Raises:
        UserError: if the folder is of something else, or is not measured to its end.
    """
    setting = _setting(folder, "evaluation", "profile_latency.py")
    table, space = LatencyTable.load(folder / _TABLE), SearchSpace.load(folder / _SPACE)
    trial = Trial.of(table, space, setting["networks"], setting["seed"])
    found, how = collected(folder)
    return trial.judge(found, how, output)


def _write(folder: Path, space: SearchSpace, table: LatencyTable | None = None) -> None:
    write_json(folder / _SPACE, space.to_dict())
    if table:
        table.save(folder / _TABLE)


def _setting(folder: Path, makes: str, other_script: str) -> dict[str, Any]:
    setting = prepared_setting(folder)
    if setting.get("makes") != makes:
        other = tool_command(other_script, "--collect", str(folder))
        raise UserError(f"'{folder}' was not prepared by this tool; collect it with: {other}")
    return setting
