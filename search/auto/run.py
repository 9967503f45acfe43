"""``spnas auto``: the whole, from the check of the data to the report."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE
from backbones.latency import LatencyTable
from backbones.zoo import load_architecture
from detection.engine.results import results_part
from detection.engine.run_folder import run_traces
from search.auto.baseline import choose_baseline
from search.auto.data_facts import DataFacts
from search.auto.plan import Plan, plan_table
from search.auto.planning import look, make_plan, quietly
from search.auto.quantities import spoken
from search.auto.request import Request, check_output
from search.auto.result import check_command, finish
from search.auto.running import Times, locked, run_stage, seconds_left
from search.auto.stages import Job, jobs, told
from search.auto.tables import check_reachable
from search.command_line.registry import typed
from search.start.seed import search_space
from search.studies.commands import check_folders

WAY_OUT = "name another folder (--output), or delete that one"


def run_auto(request: Request, output: Path, plan_only: bool = False) -> None:
    """Plans, runs what is not done yet, and says what came out.

    Args:
        request: what is asked for.
        output: folder of all.
        plan_only: print the plan and stop.

    Raises:
        UserError: for a wrong start, with nothing written; or if a stage fails, with all before
            it kept.
    """
    begun = time.monotonic()
    check_output(output)
    if (plan := known_plan(request, output)) is None:
        ground = look(request, output)
        plan, facts = make_plan(ground, output)
        is_new = True
    else:
        facts, is_new = DataFacts.load(output), False
    say_plan(plan, facts, output)
    if plan_only:
        return
    with locked(output) as lock:
        if is_new:
            facts.save(output)
            plan.save(output)
            Times(output).set("check", time.monotonic() - begun)
        with quietly():
            check_folders(job.command for job in jobs(plan, output) if job.command)
        failed = run_stages(plan, output, lock)
        finish(output, typed(request.words(output)))
    if failed:
        raise UserError(failed)


def known_plan(request: Request, output: Path) -> Plan | None:
    """The plan that a folder has for the same request; None where it has none.

    One of another request is replaced as long as nothing is trained by it: what is profiled stays.

    Raises:
        UserError: naming what differs from the request of a folder's runs.
    """
    plan = Plan.load(output)
    if plan is None:
        if traces := [f.name for f in sorted(output.glob("*/config.yaml"))]:
            raise UserError(
                f"'{output}' holds runs ({len(traces)}) that no plan.json speaks of; {WAY_OUT}"
            )
        return None
    differing = plan.request.differing(request)
    if not differing:
        return plan
    if not any(run_traces(folder) for folder in output.iterdir() if folder.is_dir()):
        return None
    raise UserError(
        f"'{output}' holds what another command has begun: {', '.join(differing)}; {WAY_OUT}"
    )


def run_stages(plan: Plan, output: Path, lock: int) -> str:
    """Runs the stages that are not done.

    Returns:
        What is to be said of exports that failed; empty where none did.
    """
    times, failed = Times(output), []
    for index, planned in enumerate(jobs(plan, output)):
        if planned.kind != "profile":
            _check_targets(plan, output)
        plan = _with_baseline(plan, output, planned, times)
        stages = jobs(plan, output)
        job = stages[index]
        if job.done():
            continue
        left = seconds_left(plan, stages, times)
        try:
            run_stage(job, index + 1, len(stages), left, times, lock)
        except UserError as error:
            if job.kind != "export":
                raise
            failed.append(f"{job.title}: {error}")
    return "; ".join(failed)


def _check_targets(plan: Plan, output: Path) -> None:
    """Insists, before anything is trained, on targets that a table made here reaches."""
    if plan.work.profiles and not (output / "start" / "results.json").exists():
        kept = f" (kept as '{plan.table}')"
        request = plan.request
        space = search_space(plan.recipe.searching(output / "search", output, ()).config())
        table = LatencyTable.load(plan.table)
        check_reachable(request.targets, request.seed_network, space, table, kept)


def _with_baseline(plan: Plan, output: Path, job: Job, times: Times) -> Plan:
    """The plan with the backbone to compare with, chosen when its turn comes."""
    if plan.baseline is not None or job.kind != "baseline":
        return plan
    request = plan.request
    print("\nChoosing a published backbone of about this runtime …", flush=True)
    table = LatencyTable.load(plan.table)
    folder = output / "baseline_network"
    cfg = plan.recipe.training(folder, output, 1.0, plan.recipe.seed_options).config()
    found = results_part(output / "search", "search")["predicted_runtime"]
    with times.of(job.name):
        chosen = choose_baseline(found, table, request.seed_network, folder, cfg)
    if chosen.width_mult != 1:  # a file of its own, which can be measured by its path
        load_architecture(chosen.arch).scaled(chosen.width_mult).save(folder / ARCHITECTURE_FILE)
    plan = dataclasses.replace(plan, baseline=chosen)
    plan.save(output)
    print(f"{chosen.name}: {chosen.note}", flush=True)
    return plan


def say_plan(plan: Plan, facts: DataFacts, output: Path) -> None:
    """Prints what was found in the data, what is proposed, and the stages with their time."""
    print(f"\nData, in full by: {check_command(plan)}")
    for item in facts.sets:
        counted = ", ".join(f"{key} {item.facts[key]}" for key in ("images", "classes", "objects"))
        scales = ", ".join(f"{key} {item.facts[key]}" for key in ("small", "medium", "large"))
        print(f"- {item.name}: {counted} ({scales})")
        for finding in item.findings:
            print(f"  - odd: {finding}")
    print("Proposed:")
    for proposal in facts.proposals:
        print(f"- {proposal.key} {proposal.value}: {proposal.reason}")
    seconds = plan.schedule.seconds
    stages = jobs(plan, output)
    rows = [(job.title, told(job, plan), seconds[job.kind]) for job in stages]
    rows.append(("Write the report", "", seconds["report"]))
    print(f"\n{plan_table(rows)}")
    if done := sum(job.done() for job in stages):
        print(f"{done} of {len(stages)} stages are done already.")
    if not plan.work.profiles:
        print(f"Runtimes are by the latency table '{plan.table}': the device is not profiled.")
    if plan.request.budget is not None:
        print(f"The budget of {spoken(plan.request.budget)} holds this plan.")
