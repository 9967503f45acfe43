"""The demo: ``spnas auto`` on the embedded digits, with arguments that suit any machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from backbones.figures import shown
from detection.report import COLUMNS, TASK_NAMES
from detection.scoring import METRICS
from search.auto.outcome import Outcome
from search.auto.plan import Plan
from search.auto.planning import look, make_plan
from search.auto.probe import Costs
from search.auto.request import Request
from search.auto.run import run_auto
from search.auto.stages import jobs
from search.command_line.registry import typed
from search.studies.commands import Command
from search.studies.markdown import beside, table

DEMO = Request(
    data="digits",
    targets=(7.0,),
    table="epyc_onnxruntime_lite0_fpn64_192",
    size=192,
    options=(
        *("SOLVER.EPOCHS", "0.55", "SOLVER.IMS_PER_BATCH", "2"),
        *("SEARCH.SENSITIVITY.IMAGES", "20", "SEARCH.SENSITIVITY.CALIBRATION_BATCHES", "4"),
    ),
)
"""By a table that comes with the package, so that every machine searches for the same network."""

_NO_COSTS = Costs(192, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def demo_request(seed: int = 0) -> Request:
    """What the demo asks ``spnas auto`` for; another seed gives other networks."""
    seeded = ("SEED", str(seed)) if seed else ()  # 0 is the configurations' own
    return dataclasses.replace(DEMO, options=(*DEMO.options, *seeded))


@cache
def demo_plan() -> Plan:
    """Of the demo; how long it takes is not asked."""
    plan, _ = make_plan(look(DEMO, Path()), Path(), _NO_COSTS)
    return plan


def demo_commands(output: Path, seed: int = 0) -> list[Command]:
    """The start's training, the search, and the fine-tuning of the network found."""
    plan, request = demo_plan(), demo_request(seed)
    recipe = dataclasses.replace(plan.recipe, request=request)
    plan = dataclasses.replace(plan, request=request, recipe=recipe)
    commands = {job.name: job.command for job in jobs(plan, output) if job.command}
    return [command for name, command in commands.items() if name != "baseline"]


def run_demo(output: Path) -> None:
    """Runs ``spnas auto`` and leaves what the pages show of it.

    Raises:
        UserError: if the folder holds runs of other configurations, or a command fails.
    """
    request = demo_request()
    print(f"$ {typed(request.words(output))}")
    run_auto(request, output)
    minutes = Outcome.load(output).seconds / 60
    print(f"The demo took {minutes:.1f} minutes.")


def demo_section(study: Mapping[str, Any]) -> str:
    """What the demo came to, of its ``auto.json``."""
    return f"{_table(study)}\n\n{_said(study)} {beside({**study, 'command': 'make demo'})}"


def auto_section(study: Mapping[str, Any]) -> str:
    """What a ``spnas auto`` came to, of its ``auto.json``, and what its baseline is."""
    notes = " ".join(f"{row['role']}: {row['note']}." for row in study["rows"] if row["note"])
    return "\n\n".join(filter(None, (_table(study), _said(study), notes, beside(study))))


def _table(study: Mapping[str, Any]) -> str:
    """AP by object scale of what was found, beside the start's and the baseline's."""
    cells = [
        [
            row["role"],
            row["name"],
            TASK_NAMES[task],
            *("–" if figures[key] is None else f"{figures[key]:.2f}" for key in METRICS),
            *("–" if row[key] is None else shown(row[key]) for key in ("predicted", "measured")),
            f"{row['params'] / 1e6:.2f}",
        ]
        for row in study["rows"]
        for task, figures in row["scores"].items()
        if task in TASK_NAMES
    ]
    scores = ["AP of", *COLUMNS]
    runtimes = [f"predicted ({study['unit']})", "measured (ms)"]
    return table(["", "network", *scores, *runtimes, "Params (M)"], cells)


def _said(study: Mapping[str, Any]) -> str:
    """Targets, and the time of all stages."""
    targets = " ".join(f"{row['target']:g}" for row in study["rows"] if row["target"])
    minutes = sum(stage["seconds"] or 0 for stage in study["stages"]) / 60
    return f"Target {targets} {study['unit']} by `{study['table']}`; {minutes:.1f} minutes in all."
