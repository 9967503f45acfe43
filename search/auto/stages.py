"""The stages of a plan as commands that a user would type, each with its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.deployment.contract import contract_path
from backbones.deployment.formats import SUFFIXES, Format
from backbones.latency import LatencyTable
from backbones.precisions import short_name
from detection.engine.results import results_part
from search.auto.outcome import Role
from search.auto.plan import Plan
from search.auto.quantities import target_name
from search.auto.recipe import SEARCH, TUNING, seed_architecture
from search.command_line.registry import tool_words
from search.studies.commands import Command

MEASURED_FILE = "measured.json"


@dataclass(frozen=True)
class Job:
    """One stage.

    Attributes:
        name: of its folder, or of what it writes; below the folder of the whole.
        kind: what it is in :attr:`search.auto.schedule.Schedule.seconds`.
        title: what it does, in half a line.
        words: of its command, behind ``python``; none while it is not known.
        done: whether it has come to its end.
        command: of a training or a search.
        model: the folder of the detector that it writes files of.
    """

    name: str
    kind: str
    title: str
    words: tuple[str, ...]
    done: Callable[[], bool]
    command: Command | None = None
    model: str = ""
    file: Path | None = field(default=None)


def jobs(plan: Plan, output: Path) -> list[Job]:
    """All stages in their order.

    Args:
        plan: with its baseline, once that is chosen.
        output: folder of all.
    """
    found = [f"found_{target_name(target)}" for target in plan.request.targets]
    stages = [
        *_profiling(plan, output),
        _training(plan, output, "start", "Train the detector to start from", _starting(plan)),
        _searching(plan, output),
        *(
            _training(plan, output, name, f"Fine-tune the network found for {target:g} ms", keys)
            for name, target, keys in zip(
                found, plan.request.targets, _tuned(plan, output), strict=True
            )
        ),
        _baseline(plan, output),
        *(
            _exporting(plan, output, name, target, form)
            for name, target in zip(found, plan.request.targets, strict=True)
            for form in plan.request.formats
        ),
    ]
    return [*stages, *_measuring(plan, output)]


def _profiling(plan: Plan, output: Path) -> list[Job]:
    if not plan.work.profiles:
        return []
    path, request = Path(plan.table), plan.request
    effort = plan.schedule.effort
    words = (
        *tool_words("profile_latency.py"),
        *("--config-file", SEARCH),
        *_deployed(plan, request.engine, request.device, 1, "fp32"),
        *("--rounds", str(effort.rounds), "--networks", str(effort.networks)),
        *("--output", str(path)),
        *plan.recipe.space_options,
    )
    title = f"Profile {request.engine} on this machine"
    return [Job(path.stem, "profile", title, words, path.exists)]


def _deployed(
    plan: Plan, engine: str, device: str, threads: int, precision: str
) -> tuple[str, ...]:
    height, width = plan.recipe.deploy_size
    return (
        *("--engine", engine),
        *(("--device", device) if device != "cpu" else ()),
        *(("--threads", str(threads)) if threads != 1 else ()),
        *(("--precision", precision) if precision != "fp32" else ()),
        *("--task", "detection", "--input-size", f"{height}x{width}"),
        *("--fpn-channels", str(plan.fpn_channels)),
    )


def _starting(plan: Plan) -> tuple[str, ...]:
    return plan.recipe.seed_options


def _tuned(plan: Plan, output: Path) -> list[tuple[str, ...]]:
    """Keys that name each network found, and its detector."""
    return [
        (
            *("MODEL.SPNAS.ARCH", str(folder / "architecture.json")),
            *("MODEL.WEIGHTS", str(folder / "detector.pth")),
            *TUNING,
        )
        for folder in found_folders(plan.request.targets, output)
    ]


def found_folders(targets: Sequence[float], output: Path) -> list[Path]:
    """Where the search leaves the network of each target."""
    search = output / "search"
    return [search, *(search / "family" / f"{target:g}" for target in targets[1:])]


def _training(plan: Plan, output: Path, name: str, title: str, own: tuple[str, ...]) -> Job:
    kind = name if name in plan.schedule.epochs else "tune"
    keys = (*own, "MODEL.SPNAS.LATENCY_TABLE", plan.table)
    command = plan.recipe.training(output / name, output, plan.schedule.epochs[kind], keys)
    return Job(name, kind, title, tuple(command.words()), lambda: command.finished, command)


def _searching(plan: Plan, output: Path) -> Job:
    first, *further = plan.request.targets
    effort, folder = plan.schedule.effort, output / "search"
    keys = (
        *("MODEL.WEIGHTS", str(output / "start" / "model_final.pth")),
        *("SEARCH.LATENCY_TABLE", plan.table, "SEARCH.TARGET", f"{first:g}"),
        *(("SEARCH.FAMILY", str(further)) if further else ()),
        *("SEARCH.SENSITIVITY.IMAGES", str(effort.images)),
        *("SEARCH.SENSITIVITY.CALIBRATION_BATCHES", str(effort.batches)),
        *("SOLVER.EPOCHS", f"{plan.schedule.epochs['adapt']:g}"),
    )
    command = plan.recipe.searching(folder, output, keys)
    targets = " and ".join(f"{target:g}" for target in plan.request.targets)
    title = f"Search on its losses for {targets} ms"
    parts = ("search", "detection")

    def done() -> bool:
        return all(results_part(folder, part) is not None for part in parts)

    return Job("search", "search", title, tuple(command.words()), done, command)


def _baseline(plan: Plan, output: Path) -> Job:
    title = "Train a published backbone by the same recipe"
    if plan.baseline is None:
        return Job("baseline", "baseline", title, (), lambda: False)
    title = f"Train {plan.baseline.name} by the same recipe, in as many steps"
    return _training(plan, output, "baseline", title, plan.baseline.options())


def _exporting(plan: Plan, output: Path, name: str, target: float, form: Format) -> Job:
    file = output / "export" / form / f"{target_name(target)}{SUFFIXES[form]}"
    words = (
        *tool_words("export_model.py"),
        *("--kind", "detector", "--format", form, "--output", str(file)),
        *("--evaluate", str(plan.work.evaluated), str(output / name)),
    )
    title = f"Export the network found for {target:g} ms as {form}"
    return Job(
        f"export/{form}/{target_name(target)}",
        "export",
        title,
        words,
        contract_path(file).exists,
        model=name,
        file=file,
    )


def _measuring(plan: Plan, output: Path) -> list[Job]:
    if not plan.work.measures:
        return []
    known = plan.baseline is not None and (plan.work.profiles is False or Path(plan.table).exists())
    file = output / MEASURED_FILE
    title = "Measure the networks in turns"
    if not known or plan.baseline is None:
        return [Job(MEASURED_FILE, "measure", title, (), lambda: False)]
    table = LatencyTable.load(plan.table)
    device, precision = plan.request.device, short_name(table.precision)
    words = (
        *tool_words("profile_latency.py"),
        *("--config-file", SEARCH),
        *_deployed(plan, table.engine, device, table.threads or 1, precision),
        *("--architectures", *measured_networks(plan, output)),
        *("--table", plan.table, "--output", str(file)),
        *plan.recipe.space_options,
    )
    return [Job(MEASURED_FILE, "measure", title, words, file.exists, file=file)]


def measured_networks(plan: Plan, output: Path) -> list[str]:
    """The networks that are measured in turns: those found, the start, the baseline."""
    assert plan.baseline is not None
    found = found_folders(plan.request.targets, output)
    own = plan.baseline.width_mult == 1
    baseline = plan.baseline.arch if own else str(output / "baseline_network/architecture.json")
    return [
        *(str(folder / "architecture.json") for folder in found),
        seed_architecture(plan.request.seed_network),
        baseline,
    ]


def rows_of(plan: Plan) -> list[tuple[str, Role, float | None]]:
    """Folder, role and target of every detector in the final table."""
    found: list[tuple[str, Role, float | None]] = [
        (f"found_{target_name(target)}", "found", target) for target in plan.request.targets
    ]
    return [*found, ("start", "start", None), ("baseline", "baseline", None)]


def told(job: Job, plan: Plan) -> str:
    """What a stage does, in numbers, for the plan."""
    effort, work = plan.schedule.effort, plan.work
    a_pass: float = work.train_images / work.batch
    epochs: Any = plan.schedule.epochs

    def steps(name: str) -> str:
        return f"{epochs[name]:g} epochs, {max(round(epochs[name] * a_pass), 1):,} steps"

    match job.kind:
        case "profile":
            return (
                f"{work.layer_items} layers and {effort.networks} networks, {effort.rounds} visits"
            )
        case "search":
            return f"{steps('adapt')}; {work.measured} networks on {effort.images} images"
        case "start" | "tune" | "baseline":
            return steps(job.kind)
        case "export":
            return f"judged on {work.evaluated} images"
        case _:
            return f"{work.targets + 2} networks"
