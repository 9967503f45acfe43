"""Jobs as the commands that a user would type, each in a process of its own."""

from __future__ import annotations

import argparse
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from detectron2.config import CfgNode

from backbones.errors import UserError
from backbones.factory import load_architecture
from detection.config import add_spnas_config
from detection.data.resolve import resolve_data
from detection.engine.config_file import load_config
from detection.engine.results import results_part
from detection.engine.reuse import check_same_network, check_same_run
from detection.engine.wandb_settings import environment_of_run
from search.classification.data import resolve_classifier
from search.command_line.registry import tool_words, typed
from search.config import add_search_config
from search.runs.data import resolve_search_data
from search.studies.workers import Call, Workers, run_calls

WAY_OUT = "name another folder (--output)"

_LAST_STEP_S = 60
"""Seconds that a command has to end; Slurm tells a job 90 before the end of its time."""

_PARTS = {
    "search_net.py": "search",
    "train_classifier.py": "classification",
    "train_net.py": "detection",
}
"""What a tool's run writes into ``results.json`` at its end."""
_KEYS: dict[str, Callable[[CfgNode], None]] = {
    "search_net.py": add_search_config,
    "train_classifier.py": add_search_config,
    "train_net.py": add_spnas_config,
}
"""What adds the keys that a script knows."""
_RESOLVE: dict[str, Callable[[CfgNode], tuple[CfgNode, list[str]]]] = {
    "search_net.py": resolve_search_data,
    "train_classifier.py": resolve_classifier,
    "train_net.py": resolve_data,
}
"""What settles, in a script, what its data decide."""


@dataclass(frozen=True)
class Command:
    """One run of a tool.

    Attributes:
        script: below ``tools/``.
        config_file: of the run.
        folder: its run folder.
        options: keys to change and their values, in turns.
        arguments: further ones, such as ``--num-gpus 8``.
        threads: of its process; None takes its share of the machine.
        study: the folder that has those of all runs of a study; W&B shows these as a group.
    """

    script: str
    config_file: str
    folder: Path
    options: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    threads: int | None = None
    study: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end, which its results are; a cut file is none."""
        return results_part(self.folder, _PARTS[self.script]) is not None

    def words(self) -> list[str]:
        """What follows ``python``; with ``--resume`` a second call goes on where it was."""
        return [
            *tool_words(self.script),
            *("--config-file", self.config_file, *self.arguments, "--resume"),
            *("OUTPUT_DIR", str(self.folder), *self.options),
        ]

    def config(self) -> CfgNode:
        """The configuration that the run would have, on the CPU.

        Raises:
            UserError: for a mistake in it.
        """
        options = ["OUTPUT_DIR", str(self.folder), *self.options, "MODEL.DEVICE", "cpu"]
        args = argparse.Namespace(config_file=self.config_file, opts=options)
        cfg, _ = _RESOLVE[self.script](load_config(args, _KEYS[self.script]))
        return cfg


def check_folders(commands: Iterable[Command]) -> None:
    """Insists that what is in the folders already, finished or begun, is of these commands.

    Raises:
        UserError: naming the keys in which a run differs from its command, or a network that is
            another one by now.
    """
    for command in commands:
        if not command.folder.exists():
            continue
        cfg = command.config()
        check_same_run(command.folder, cfg, WAY_OUT)
        architecture = command.folder / "architecture.json"
        if command.script == "train_classifier.py" and architecture.exists():
            node = cfg.MODEL.SPNAS
            network = load_architecture(node.ARCH).scaled(node.WIDTH_MULT)
            check_same_network(architecture, network, WAY_OUT)


def backbone_overrides(folder: Path) -> tuple[str, ...]:
    """The keys that name the network, and its weights, which a search or a classifier left."""
    architecture, weights = folder / "architecture.json", folder / "backbone.pth"
    return ("MODEL.SPNAS.ARCH", str(architecture), "MODEL.WEIGHTS", str(weights))


def run_in_order(commands: Sequence[Command], titles: Sequence[str]) -> None:
    """Runs the commands in order; a title stands above each of them.

    Raises:
        UserError: if one fails; those before it are kept.
    """
    for number, (command, title) in enumerate(zip(commands, titles, strict=True), start=1):
        words = command.words()
        print(f"\n[{number}/{len(commands)}] {title}\n$ {typed(words)}", flush=True)
        code = subprocess.run([sys.executable, *words], env=environment(command)).returncode
        if code:
            raise UserError(
                f"command {number} of {len(commands)} ended with exit code {code}, see above; the "
                "same command goes on there"
            )


def run_beside(jobs: Sequence[Sequence[Command]], workers: Workers) -> Iterator[int]:
    """Runs jobs of several commands, some at once.

    What a command prints goes into ``<its folder>.log``, for its folder is its own to make.

    Args:
        jobs: the commands of each, which run in order.
        workers: where: on this machine, each with its share of the cores and the GPUs, or as the
            jobs of a cluster, which have what these ask for.

    Yields:
        Which job has ended, by its index.

    Raises:
        UserError: if a command fails. On this machine no job is started then, and those under way
            end first; on a cluster, all others are run.
    """
    if workers.cluster:
        calls = [
            Call(str(job[-1].folder), partial(run_quietly, job), [c.words() for c in job])
            for job in jobs
        ]
        for index, _ in run_calls(calls, workers):
            yield index
    else:
        yield from _run_with_shares(jobs, workers.count)


def run_quietly(commands: Sequence[Command]) -> None:
    """Runs commands in order, with what this process has of the machine.

    Raises:
        UserError: if one fails; the others are not run.
    """
    for command in commands:
        _run_quietly(command, {})


def _run_with_shares(jobs: Sequence[Sequence[Command]], workers: int) -> Iterator[int]:
    shares: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for share in machine_shares(workers):
        shares.put(share)

    def run(commands: Sequence[Command]) -> None:
        share = shares.get()
        try:
            for command in commands:
                _run_quietly(command, share)
        finally:
            shares.put(share)

    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(run, job): index for index, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _run_quietly(command: Command, share: Mapping[str, str]) -> None:
    log = command.folder.with_name(f"{command.folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, *command.words()],
            env=environment(command, share),
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            code = process.wait()
        except BaseException:
            leave(process)
            raise
    if code:
        (*_, last) = ["", *log.read_text(encoding="utf-8", errors="replace").splitlines()]
        raise UserError(
            f"'{command.folder}' ended with exit code {code}: {last.removeprefix('error: ')} "
            f"(all of it in '{log}'); the same command goes on there"
        )


def leave(process: subprocess.Popen[bytes]) -> None:
    """Ends a command, which leaves a checkpoint where its present step ends in time."""
    process.terminate()
    try:
        process.wait(_LAST_STEP_S)
    except subprocess.TimeoutExpired:
        process.kill()


def command_threads(workers: int) -> int:
    """Threads of every command that runs beside others: ``OMP_NUM_THREADS``, or an even share."""
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, int(named) if named.isdigit() else (os.cpu_count() or 1) // workers)


def machine_shares(workers: int) -> list[dict[str, str]]:
    """The environment of every worker: the threads and the visible GPUs dealt out evenly."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = (
        list(map(str, range(torch.cuda.device_count()))) if named is None else named.split(",")
    )
    return [
        {
            "OMP_NUM_THREADS": str(command_threads(workers)),
            "CUDA_VISIBLE_DEVICES": ",".join(devices[worker::workers]),
        }
        for worker in range(workers)
    ]


def environment(command: Command, share: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the process of a command finds: the run's own W&B settings, its threads.

    Args:
        command: of the process.
        share: variables of its share of the machine.
    """
    own = environment_of_run(os.environ, command.folder, command.study)
    threads = {} if command.threads is None else {"OMP_NUM_THREADS": str(command.threads)}
    return {"PYTHONWARNINGS": "ignore", **own, **(share or {}), **threads}
