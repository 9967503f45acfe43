"""A folder that is filled here and timed elsewhere: models, plan and script, then measurements."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import zipapp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import backbones.inference.board
from backbones.errors import UserError
from backbones.files import atomic_path, read_json, write_json
from backbones.inference import Engine
from backbones.inference.board.measure import MEASUREMENTS, PLAN, plan_id
from backbones.inference.board.models import MODULES
from backbones.inference.board.turns import in_turns, read_visits
from backbones.inference.hardware import title
from backbones.inference.measurement import Measurement
from search.command_line.registry import tool_command
from search.profiling.journal import Journal, Visit
from search.profiling.measuring import convert, without_model
from search.profiling.pace import EVERY, at_one_pace
from search.profiling.setting import MeasuredWith
from search.profiling.workload import Item

logger = logging.getLogger(__name__)

SCRIPT = "measure.py"
_FACTS = {"plan": str, "device": dict, "versions": dict, "threads": int, "cores": int}


def prepare(
    folder: Path,
    items: Sequence[Item],
    reference: Item,
    engine: Engine,
    setting: Mapping[str, Any],
    device: str,
    threads: int,
    rounds: int,
) -> None:
    """Converts everything that is to be measured, and writes plan and script beside the models.

    An interrupted preparation goes on where it stopped.

    Args:
        folder: made if missing; empty, or begun with the same setting.
        items: what to measure.
        reference: tells the pace of the device.
        engine: converts; it need not run what it converts.
        setting: what collecting needs to know again.
        device: ``cpu`` or ``cuda``, of the other machine.
        threads: of one inference there.
        rounds: visits to every item.

    Raises:
        UserError: if the engine has no files, or something else is in the folder.
    """
    if not engine.converts or engine.name not in MODULES:
        raise UserError(
            f"--engine is {engine.name}, which measures in place alone; prepare with --engine "
            f"{' or '.join(MODULES)}"
        )
    if threads < 1:
        raise UserError(f"--threads is {threads}; expected 1 or more")
    if engine.precision not in engine.precisions.get(device, ()):
        raise UserError(f"{engine.title} has no {engine.precision} on {device}; use --device cpu")
    if folder.exists() and not (folder.is_dir() and _is_ours(folder)):
        raise UserError(f"'{folder}' has other things in it; name an empty folder, or a new one")
    engine.check_conversion()
    journal = Journal(folder, {**setting, "versions": engine.versions()})
    wanted = [*items, reference]
    missing = without_model(wanted, engine, journal)
    logger.info("%d of %d models to convert into '%s'", len(missing), len(wanted), folder)
    convert(missing, engine, journal)
    plan = {
        "engine": engine.name,
        "device": device,
        "threads": threads,
        "precision": engine.precision,
        "rounds": rounds,
        "every": EVERY,
        "reference": reference.key,
        "models": [item.key for item in items],
    }
    write_json(folder / PLAN, plan)
    write_script(folder / SCRIPT)


def _is_ours(folder: Path) -> bool:
    return (folder / "setting.json").is_file() or not any(folder.iterdir())


def write_script(path: Path) -> None:
    """Packs ``backbones.inference.board`` into one file that Python runs (:mod:`zipapp`)."""
    (source,) = backbones.inference.board.__path__
    with tempfile.TemporaryDirectory() as name, atomic_path(path) as temporary:
        package = Path(name, "board")
        shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
        zipapp.create_archive(name, temporary, "/usr/bin/env python3", "board.measure:main")


def prepared_setting(folder: Path) -> dict[str, Any]:
    """The setting that a folder was prepared with.

    Raises:
        UserError: if it is no prepared folder.
    """
    if not (folder / PLAN).is_file():
        raise UserError(
            f"'{folder}' is no prepared folder, or its preparation was interrupted: it lacks "
            f"{PLAN}; repeat the command with --prepare"
        )
    setting: dict[str, Any] = read_json(folder / "setting.json", "setting")
    return setting


def collected(folder: Path) -> tuple[dict[str, Measurement], MeasuredWith]:
    """What was measured with a prepared folder, all at one pace, and where.

    Raises:
        UserError: if visits are missing, are of another plan, or are none.
    """
    plan = read_json(folder / PLAN, "plan")
    path = folder / MEASUREMENTS
    facts, lines = read_visits(path)
    if not facts:
        raise UserError(
            f"'{path}' is not there or is empty; run {SCRIPT} on the device, and copy the file back"
        )
    wrong = [name for name, kind in _FACTS.items() if not isinstance(facts.get(name), kind)]
    if wrong or facts["plan"] != plan_id(folder):
        raise UserError(
            f"'{path}' is of another plan than '{folder / PLAN}'; collect from the folder that was "
            "copied to the device, or measure again"
        )
    turns = in_turns(plan["models"], plan["reference"], plan["rounds"], plan["every"])
    wanted = {(key, round_) for round_, key in turns}
    visits = [Visit(*line) for line in lines if line[:2] in wanted and 0 < line[2] < math.inf]
    if missing := len(wanted - {(visit.key, visit.round) for visit in visits}):
        raise UserError(
            f"'{path}' lacks {missing:,} of {len(wanted):,} visits; run {SCRIPT} again on "
            f"{title(facts['device'])}, which goes on where it stopped, and copy the file back"
        )
    # what ran the models there takes the place of what would have run them here
    packages = {name.replace("_", "-") for name in MODULES[plan["engine"]]}
    converters = prepared_setting(folder)["versions"]
    versions = {name: found for name, found in converters.items() if name not in packages}
    how = MeasuredWith(
        device=title(facts["device"]),
        engine=plan["engine"],
        versions={**facts["versions"], **versions},
        threads=facts["threads"],
        precision=plan["precision"],
        cores=facts["cores"] if plan["device"] == "cpu" else None,
        rounds=plan["rounds"],
        minutes=float(facts.get("minutes", 0.0)),
        command=f"{tool_command('profile_latency.py', '--prepare')} and --collect",
    )
    return at_one_pace(visits, plan["reference"]), how
