"""What the stages came to: the rows, ``auto.json``, the report and the final table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tabulate import tabulate

from backbones.deployment.contract import Contract, contract_path
from backbones.figures import shown
from backbones.files import read_json
from backbones.inference import make_engine
from backbones.latency import LatencyTable
from backbones.precisions import short_name
from detection.deployment import Deployment, measured_with
from detection.engine.provenance import provenance
from detection.engine.results import REPORT_FILE, results_part
from detection.report import COLUMNS, TASK_NAMES
from detection.scoring import METRICS
from search.auto.outcome import ExportedFile, Outcome, Row, Stage, scores_of
from search.auto.plan import Plan
from search.auto.recipe import TRAINING
from search.auto.running import Times
from search.auto.stages import MEASURED_FILE, Job, jobs, rows_of
from search.command_line.registry import tool_words, typed
from search.report.page import write_report


def finish(output: Path, command: str) -> None:
    """Writes ``auto.json`` and ``report.html`` of what is done, and prints the final table."""
    plan = Plan.load(output)
    assert plan is not None
    times = Times(output)
    with times.of("report"):
        outcome = outcome_of(plan, output, times, command)
        outcome.save(output)
        report = write_report([output], output / REPORT_FILE)
    stages = (*outcome.stages[:-1], _report_stage(plan, output, times))
    dataclasses.replace(outcome, stages=stages).save(output)
    print(f"\n{final_table(outcome)}\n")
    print(f"The report: {report}")
    for row in outcome.rows:
        for file in row.exports:
            print(f"{row.name}: {output / file.file}")
    print(f"All of it is in {output}/")


def outcome_of(plan: Plan, output: Path, times: Times, command: str) -> Outcome:
    """All that a page and the table need.

    Args:
        plan: with its baseline.
        output: folder of all.
        times: of the stages.
        command: that made it, as it is typed.
    """
    stages = jobs(plan, output)
    table = LatencyTable.load(plan.table)
    measured = _measured(output)
    rows = []
    dataset = ""
    for index, (name, role, target) in enumerate(rows_of(plan)):
        found = results_part(output / name, "detection")
        if found is None:
            continue
        dataset, scores = scores_of(found)
        cost = found["cost"]
        exports = [job for job in stages if job.kind == "export" and job.model == name]
        rows.append(
            Row(
                name=cost["backbone"],
                role=role,
                folder=name,
                scores=scores,
                params=cost["params_classifier"] or cost["params_backbone"],
                target=target,
                predicted=_predicted(cost["runtime"], role, plan),
                measured=measured[index] if index < len(measured) else None,
                note=_note(role, plan),
                exports=tuple(file for job in exports for file in _files(job, output)),
            )
        )
    facts = provenance()
    versions = {**table.versions, "torch": str(facts["torch"])}
    return Outcome(
        command=command,
        dataset=dataset,
        table=table.name,
        device=table.device,
        engine=table.engine,
        input_size=table.input_size,
        rows=tuple(rows),
        stages=(
            _check_stage(plan, times),
            *(_stage(job, plan, times) for job in stages),
            _report_stage(plan, output, times),
        ),
        unit=table.unit,
        measured_with=_how(table, plan) if measured else "",
        budget=plan.request.budget,
        hardware=str(facts["hardware"]),
        commit=facts["commit"],
        versions=versions,
    )


def _note(role: str, plan: Plan) -> str:
    if role == "baseline" and plan.baseline:
        return plan.baseline.note
    if role == "start":
        own, all_ = (plan.schedule.epochs[name] for name in ("start", "baseline"))
        return f"trained for {own:g} passes over the images, and the others for {all_:g} in all"
    return ""


def _predicted(runtime: float | None, role: str, plan: Plan) -> float | None:
    """By the table; of a baseline that it does not cover, on its scale, as its note says."""
    if runtime is None and role == "baseline" and plan.baseline:
        return plan.baseline.runtime
    return runtime


def _measured(output: Path) -> list[float]:
    file = output / MEASURED_FILE
    rows: list[dict[str, Any]] = read_json(file, "measurements") if file.exists() else []
    return [row["measured"] for row in rows]


def _how(table: LatencyTable, plan: Plan) -> str:
    engine = make_engine(
        table.engine, plan.request.device, table.threads or 1, short_name(table.precision)
    )
    return measured_with(engine, Deployment.of(table))


def _files(job: Job, output: Path) -> list[ExportedFile]:
    """The files of an export, with what each network takes."""
    assert job.file is not None
    path = contract_path(job.file)
    if not path.exists():
        return []
    contract = Contract.load(path)
    found = []
    form = job.name.split("/")[1]
    for part, network in contract.networks.items():
        file = path.parent / network.file
        latency = contract.checks.get("networks", {}).get(part, {}).get("latency", {})
        found.append(
            ExportedFile(
                file.relative_to(output).as_posix(),
                file.stat().st_size,
                form,
                part,
                latency.get("milliseconds"),
            )
        )
    return found


def _stage(job: Job, plan: Plan, times: Times) -> Stage:
    return Stage(
        title=job.title,
        command=typed(job.words) if job.words else "",
        folder=job.name if job.command else "",
        seconds=times.seconds.get(job.name),
        estimated=plan.schedule.seconds[job.kind],
    )


def _check_stage(plan: Plan, times: Times) -> Stage:
    seconds = times.seconds.get("check")
    return Stage("Look at the data, and try out some steps", check_command(plan), "", seconds)


def check_command(plan: Plan) -> str:
    """The command that says all that can be said of the data."""
    words = [*tool_words("check_data.py"), "--config-file", TRAINING]
    return typed([*words, *plan.recipe.detector("spnas")])


def _report_stage(plan: Plan, output: Path, times: Times) -> Stage:
    words = [*tool_words("report.py"), str(output)]
    seconds = times.seconds.get("report")
    return Stage("Write the report", typed(words), "", seconds, plan.schedule.seconds["report"])


def final_table(outcome: Outcome) -> str:
    """Every detector with its AP by scale, predicted and measured runtime and parameters."""
    tasks = [task for task in TASK_NAMES if any(task in row.scores for row in outcome.rows)]
    rows = []
    for row in outcome.rows:
        off = row.off_target
        costs = [
            "–" if row.target is None else f"{row.target:g}",
            "–" if row.predicted is None else shown(row.predicted),
            "–" if row.measured is None else shown(row.measured),
            "–" if off is None else f"{off:+.1f}",
            f"{row.params / 1e6:.2f}",
        ]
        for task in tasks:
            figures = [row.ap(task, metric) for metric in METRICS]
            cells = ["–" if value is None else f"{value:.2f}" for value in figures]
            rows.append([row.role, row.name, TASK_NAMES[task], *cells, *costs])
    unit = outcome.unit
    headers = [
        *("", "network", "AP of", *COLUMNS, f"target ({unit})", f"predicted ({unit})"),
        *("measured (ms)", "off target (%)", "Params (M)"),
    ]
    notes = [f"{row.role}: {row.note}." for row in outcome.rows if row.note]
    height, width = outcome.input_size
    told = f"Predicted: table '{outcome.table}', backbone with pyramid at {height}×{width}."
    text = str(tabulate(rows, headers, "pipe", stralign="right", disable_numparse=True))
    return "\n".join([text, "", told, *notes])
