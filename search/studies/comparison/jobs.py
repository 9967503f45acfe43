"""Runs for a comparison of backbones: every network and seed through the same commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detectron2.config import CfgNode
from tqdm import tqdm

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.factory import load_architecture
from backbones.files import safe_name
from backbones.inference import Engine
from detection.deployment import Deployment, measured_with, runtime_table
from detection.engine.reuse import check_same_network
from detection.modeling.pixels import own_pixel_keys
from detection.modeling.pyramid import is_built_by
from search.config import load_search_config
from search.profiling.networks import measure_architectures
from search.studies.commands import (
    WAY_OUT,
    Command,
    backbone_overrides,
    check_folders,
    run_beside,
    run_in_order,
)
from search.studies.comparison.runs import DetectorRun, load_run
from search.studies.methods.study import draw_architecture
from search.studies.trials import trial_config
from search.studies.workers import HERE, Workers


@dataclass(frozen=True)
class Entry:
    """A row to be: a detector with one network as its backbone.

    Attributes:
        name: of the row; several networks may share one.
        config_file: of the detector.
        architecture: name or path of the network; None keeps the one in the file.
        folder: of its runs, below that of the comparison; None is called as the row.
        seed: the only one that it is trained with; None has all seeds.
    """

    name: str
    config_file: str
    architecture: str | None = None
    folder: str | None = None
    seed: int | None = None


def entries(config_files: Sequence[str], architectures: Sequence[str]) -> list[Entry]:
    """The rows that a command line asks for.

    Args:
        config_files: detectors; without ``architectures``, each with the network that it names.
        architectures: names or paths of networks for every detector; ``NAME=PATH`` names the row.

    Raises:
        UserError: if two rows have one name, or one has a name that cannot name its folder.
    """
    found = []
    for file in config_files:
        if not architectures:
            found.append(Entry(network_name(load_search_config(file)), file))
        for item in architectures:
            name, named, path = item.rpartition("=")
            found.append(Entry(name if named else Path(path).stem, file, path))
    names = [safe_name(entry.name, "a row") for entry in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"two rows are called '{twice[0]}'; name them apart: --architectures NAME=PATH, or "
            "compare one detector at a time"
        )
    return found


def random_entries(
    config_file: str, search_cfg: CfgNode, networks: int, seeds: int, output: Path
) -> list[Entry]:
    """Networks drawn at a target, as one row: what a search has to be better than.

    Each is trained once, with the seeds in turn: networks differ by more than seeds do, so the
    row's mean gains from another network what it would not from another seed.

    Args:
        config_file: of the detector.
        search_cfg: for space, latency table and ``SEARCH.TARGET``.
        networks: how many.
        seeds: of the comparison.
        output: folder of the comparison; ``random<i>.json`` are written into it.

    Raises:
        UserError: if no network of the space is at the target, or ``output`` holds others.
    """
    found = []
    for index in range(networks):
        architecture = draw_architecture(trial_config(search_cfg, index))
        file = output / f"{safe_name(architecture.name, 'a network')}.json"
        check_same_network(file, architecture, WAY_OUT)
        architecture.save(file)
        found.append(Entry("random", config_file, str(file), architecture.name, index % seeds))
    return found


def network_name(cfg: CfgNode) -> str:
    """The network that a detector's configuration names, or else the builder of its backbone."""
    builder = str(cfg.MODEL.BACKBONE.NAME)
    if is_built_by("spnas", builder):
        return Path(cfg.MODEL.SPNAS.ARCH).stem
    return str(cfg.MODEL.TIMM.NAME) if is_built_by("timm", builder) else builder


def job_of(
    entry: Entry,
    seed: int,
    output: Path,
    classifier_config: str | None,
    arguments: Sequence[str],
    options: Sequence[str],
) -> Job:
    """The runs of one row and seed.

    Args:
        entry: the row.
        seed: of both.
        output: folder of the comparison.
        classifier_config: trains every network first; None starts from the weights in the file.
        arguments: of every command.
        options: keys of every detector.
    """
    place = output / (entry.folder or entry.name)
    seeded = ("SEED", str(seed))
    network: tuple[str, ...] = ()
    pixels: tuple[str, ...] = ()
    if entry.architecture:
        network = ("MODEL.SPNAS.ARCH", entry.architecture)
        pixels = own_pixel_keys(load_architecture(entry.architecture).input)
    commands = []
    if classifier_config:
        classifier = place / f"classifier{seed}"
        commands = [
            Command(
                "train_classifier.py",
                classifier_config,
                classifier,
                (*network, *seeded),
                tuple(arguments),
                study=output,
            )
        ]
        network = backbone_overrides(classifier)
    detector = (*network, *pixels, *seeded, *options)
    folder = place / f"seed{seed}"
    commands.append(
        Command("train_net.py", entry.config_file, folder, detector, tuple(arguments), study=output)
    )
    return Job(entry, seed, tuple(commands))


@dataclass(frozen=True)
class Job:
    """One row and seed: a classifier where asked for, then the detector on it.

    Attributes:
        entry: the row.
        seed: of all commands.
        commands: in order; the detector is the last.
    """

    entry: Entry
    seed: int
    commands: tuple[Command, ...]

    def result(self) -> DetectorRun:
        """What the finished commands come to."""
        *classifier, detector = self.commands
        return load_run(
            detector.folder, self.entry.name, classifier[0].folder if classifier else None
        )


def train(jobs: Sequence[Job], workers: Workers = HERE) -> Iterator[list[DetectorRun]]:
    """Trains what is not finished.

    Args:
        jobs: in the order of their rows.
        workers: where they run; unless one by one, what they print goes to files.

    Yields:
        The runs finished so far, in the order of the jobs; whenever there is one more.

    Raises:
        UserError: if a folder holds a run of another configuration, or a command fails.
    """
    check_folders(command for job in jobs for command in job.commands)
    found = {index: job.result() for index, job in enumerate(jobs) if job.commands[-1].finished}
    if found:
        yield _in_order(found)
    pending = [index for index in range(len(jobs)) if index not in found]
    if workers.here:
        ended = _one_by_one([jobs[index] for index in pending])
    else:
        ended = run_beside([jobs[index].commands for index in pending], workers)
    for position in tqdm(ended, "Training", len(pending), unit="run", disable=not pending):
        found[pending[position]] = jobs[pending[position]].result()
        yield _in_order(found)


def _in_order(found: Mapping[int, DetectorRun]) -> list[DetectorRun]:
    return [found[index] for index in sorted(found)]


def _one_by_one(jobs: Sequence[Job]) -> Iterator[int]:
    for index, job in enumerate(jobs):
        title = f"{job.entry.folder or job.entry.name}, seed {job.seed}"
        run_in_order(job.commands, [title] * len(job.commands))
        yield index


def with_measured_runtimes(
    runs: Sequence[DetectorRun], engine: Engine, rounds: int = 16
) -> list[DetectorRun]:
    """The runs with the runtime of every backbone as it is deployed, measured in turns.

    A run measures its own while others run beside it, and hours after the first: such figures
    compare badly. What is deployed is what the runs' latency table is about.

    Args:
        runs: of one recipe.
        engine: measures.
        rounds: visits to every network.

    Raises:
        UserError: if none of the backbones is of this project, or their tables are about several
            settings.
    """
    deployment = _deployment(runs)
    how = measured_with(engine, deployment)
    networks: dict[tuple[str, str], Architecture] = {}
    for run in runs:
        if run.architecture:
            networks.setdefault((run.name, run.cost.backbone), run.architecture)
    if not networks:
        raise UserError(
            "none of the backbones is described by an architecture file, so there is nothing to "
            "measure; leave out --engine"
        )
    rows = measure_architectures(list(networks.values()), engine, deployment, rounds)
    found = {key: row["measured"] for key, row in zip(networks, rows, strict=True)}
    costs = [(run, found.get((run.name, run.cost.backbone))) for run in runs]
    return [
        replace(run, cost=replace(run.cost, measured_runtime=runtime, measured_with=how))
        if runtime is not None
        else run
        for run, runtime in costs
    ]


def _deployment(runs: Sequence[DetectorRun]) -> Deployment:
    """The setting that the runs' latency tables are about."""
    named = runs[0].recipe.get("MODEL.SPNAS.LATENCY_TABLE") or ""
    tables = [runtime_table(named, run.architecture) for run in runs if run.architecture]
    settings = {Deployment.of(table) for table in tables if table}
    if len(settings) > 1:
        found = " and ".join(sorted(setting.description for setting in settings))
        raise UserError(
            f"the networks' latency tables are about {found}; name one table for all with "
            "MODEL.SPNAS.LATENCY_TABLE, or leave out --engine"
        )
    return settings.pop() if settings else Deployment()
