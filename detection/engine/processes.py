"""The processes of a run: its own, those of torchrun or of srun; and the group that they form."""

from __future__ import annotations

import argparse
import re
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic, sleep

import torch
import torch.distributed as dist
from detectron2.utils import comm

from backbones.errors import UserError

MEETING_TIME = timedelta(minutes=5)
"""That a launcher's processes have for their start; those of other machines, started by hand, have
:data:`COLLECTIVE_TIME`."""

COLLECTIVE_TIME = timedelta(minutes=30)
"""Detectron2's: the others wait that long while one evaluates or measures."""

_LAST_WORDS = 3
"""Seconds that a process which has lost another one waits for what that one says."""

_SLURM_PORTS = 15000, 10000
"""First port, and how many: jobs on one machine rarely share the last four digits of their id."""


@dataclass(frozen=True)
class Place:
    """The place of one process among those of its run.

    Attributes:
        rank: its number, from 0.
        size: processes in all.
        local_rank: its number on its machine, from 0, which is that of its GPU.
        url: where they meet.
        launcher: what started it, for messages; empty for the tool itself.
        attempt: number of the run's starts before this one.
    """

    rank: int
    size: int
    local_rank: int
    url: str
    launcher: str = ""
    attempt: int = 0


def launched_place(variables: Mapping[str, str], url: str = "auto") -> Place | None:
    """The place that torchrun or srun gave this process; None where it was started alone.

    Args:
        variables: of the environment.
        url: where to meet under srun; ``auto`` is ``MASTER_ADDR`` and ``MASTER_PORT``, or else a
            port of the first machine of the step.

    Raises:
        UserError: if variables are missing or no numbers, or another launcher is at work.
    """
    if {"RANK", "WORLD_SIZE"} <= set(variables):
        rank, size = _rank_and_size(variables, "RANK", "WORLD_SIZE", "torchrun")
        local = _number(variables, "LOCAL_RANK", "torchrun", "0")
        attempt = _number(variables, "TORCHELASTIC_RESTART_COUNT", "torchrun", "0")
        return Place(rank, size, local, "env://", "torchrun", attempt) if size > 1 else None
    # srun alone sets both; a batch script has the first of them, too
    if {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"} <= set(variables):
        rank, size = _rank_and_size(variables, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "srun")
        if size == 1:
            return None
        url = _slurm_url(variables) if url == "auto" else url
        return Place(rank, size, _number(variables, "SLURM_LOCALID", "srun"), url, "srun")
    if variables.get("OMPI_COMM_WORLD_SIZE", "1") != "1":
        raise UserError(
            "mpirun has started this process, and does not say where its processes meet; use "
            "torchrun or srun, or --num-gpus and --num-machines"
        )
    return None


def was_restarted(variables: Mapping[str, str]) -> bool:
    """Whether torchrun has started this run again, after a process of it had failed."""
    return variables.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def check_processes(args: argparse.Namespace, place: Place | None) -> int:
    """Fills in ``--num-gpus``; processes to start on this machine, 0 for none but this one.

    Args:
        args: of the command.
        place: of this process, where a launcher started it.

    Raises:
        UserError: if there are not as many GPUs, or flags contradict each other or the launcher.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if place is not None:
        _check_launched(args, place)
        args.num_gpus = min(available, 1) if args.num_gpus is None else 0
        # srun may show each process its own GPU alone
        shared = available > 1 or place.launcher == "torchrun"
        if args.num_gpus and shared and place.local_rank >= available:
            raise UserError(
                f"{place.launcher} started process {place.local_rank + 1} of this machine, which "
                f"has {available} usable GPUs; start {available}, or add --num-gpus 0 to run on "
                "the CPU"
            )
        return 0
    given, processes = args.num_gpus, args.num_processes
    if given is None:
        args.num_gpus = 0 if processes else min(available, 1)
    if args.num_gpus < 0 or args.num_machines < 1:
        raise UserError(
            f"--num-gpus is {args.num_gpus} and --num-machines {args.num_machines}; expected 0 or "
            "more GPUs and at least one machine"
        )
    if processes is not None and (processes < 1 or args.num_gpus):
        raise UserError(
            f"--num-processes is {processes} and --num-gpus {args.num_gpus}; expected 1 or more "
            "processes on the CPU, and no GPUs beside them: each GPU has a process of its own"
        )
    if args.num_gpus > available:
        raise UserError(
            f"--num-gpus is {args.num_gpus}, but this machine has {available} usable GPUs; use "
            f"--num-gpus {available}" + ("" if available else " to run on the CPU")
        )
    if not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            f"--machine-rank is {args.machine_rank}; expected 0 to {args.num_machines - 1} for "
            f"--num-machines {args.num_machines}"
        )
    count: int = args.num_gpus or processes or 0
    if args.num_machines > 1 and not count:
        raise UserError(
            "--num-machines above 1 needs GPUs, or processes on the CPU; use --num-gpus 1 or "
            "--num-processes 1, or more"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError(
            "--num-machines above 1 needs --dist-url, the same on every machine, e.g. "
            "tcp://FIRST_MACHINE:29500"
        )
    return count if count * args.num_machines > 1 else 0


def join_group(place: Place, on_gpu: bool) -> dist.Store:
    """Makes this process one of a group: of NCCL's on GPUs, else of gloo's.

    Args:
        place: of this process.
        on_gpu: its GPU is the one of its local rank, or the only one that it sees.

    Returns:
        What the processes share a few values in.

    Raises:
        UserError: if the others do not come.
    """
    if on_gpu:
        torch.cuda.set_device(place.local_rank if torch.cuda.device_count() > 1 else 0)
    time = MEETING_TIME if place.launcher else COLLECTIVE_TIME
    meeting = dist.rendezvous(place.url, place.rank, place.size, timeout=time)
    try:
        store, *_ = next(meeting)
    except (RuntimeError, ValueError) as error:
        by = f", started by {place.launcher}," if place.launcher else ""
        raise UserError(
            f"process {place.rank} of {place.size}{by} could not meet the others "
            f"({str(error).splitlines()[0][:200]}); start all of them, with an address that every "
            "machine reaches"
        ) from None
    store.set_timeout(COLLECTIVE_TIME)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        # torchrun's store still has the addresses of processes that it has started again
        store=dist.PrefixStore(f"spnas/{place.attempt}", store),
        rank=place.rank,
        world_size=place.size,
        timeout=COLLECTIVE_TIME,
    )
    # of Detectron2's communication, which is ours to keep running
    warnings.filterwarnings("ignore", "TypedStorage is deprecated")
    _set_local_group()
    comm.synchronize()
    return dist.PrefixStore(f"spnas_run/{place.attempt}", store)


def other_failed(store: dist.Store, wait: bool = False) -> bool:
    """Whether another process of the run has failed, and says why.

    Args:
        store: of :func:`join_group`.
        wait: gives it some seconds to do so.
    """
    deadline = monotonic() + (_LAST_WORDS if wait else 0)
    try:
        while not (failed := store.check(["failed"])) and monotonic() < deadline:
            sleep(0.05)
    except RuntimeError:  # the process that kept the store is gone
        return False
    return bool(failed)


def is_first_to_fail(store: dist.Store) -> bool:
    """Whether it is for this process, which fails, to say why."""
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:
        return True


def leave_group() -> None:
    """Waits for all processes, and ends their group."""
    comm.synchronize()
    dist.destroy_process_group()


def free_url() -> str:
    """An address on this machine, for processes on it alone."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{found.getsockname()[1]}"


def _set_local_group() -> None:
    """The group of every machine's processes, as Detectron2's own launcher makes it."""
    hosts = comm.all_gather(socket.gethostname())
    for host in dict.fromkeys(hosts):
        group = dist.new_group([rank for rank, other in enumerate(hosts) if other == host])
        if host == hosts[comm.get_rank()]:
            comm._LOCAL_PROCESS_GROUP = group


def _check_launched(args: argparse.Namespace, place: Place) -> None:
    chosen = {
        "--num-gpus": None if args.num_gpus == 0 else args.num_gpus,
        "--num-processes": args.num_processes,
        "--num-machines": args.num_machines if args.num_machines != 1 else None,
        "--machine-rank": args.machine_rank or None,
        # srun says nothing of an address, so that one may be named
        "--dist-url": None if args.dist_url in ("auto", place.url) else args.dist_url,
    }
    for flag, value in chosen.items():
        if value is not None:
            raise UserError(
                f"{flag} is {value}, but {place.launcher} has started this process as "
                f"{place.rank + 1} of {place.size}; leave {flag} out"
                + (", or use 0 to run on the CPU" if flag == "--num-gpus" else "")
            )


def _slurm_url(variables: Mapping[str, str]) -> str:
    nodes = variables.get("SLURM_STEP_NODELIST", "")
    # of n[01-04,07],gpu3 the first is n01
    first = re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodes).split(",")[0]
    address = variables.get("MASTER_ADDR") or first
    if not address:
        raise UserError(
            "srun has started this process, but SLURM_STEP_NODELIST does not say where; set "
            "MASTER_ADDR, or --dist-url tcp://FIRST_MACHINE:29500"
        )
    start, count = _SLURM_PORTS
    job = _number(variables, "SLURM_JOB_ID", "srun", "0")
    step = _number(variables, "SLURM_STEP_ID", "srun", "0")
    port = variables.get("MASTER_PORT") or start + (job + step) % count
    return f"tcp://{address}:{port}"


def _rank_and_size(
    variables: Mapping[str, str], rank: str, size: str, launcher: str
) -> tuple[int, int]:
    found = _number(variables, rank, launcher), _number(variables, size, launcher)
    if found[0] >= found[1]:
        raise UserError(
            f"{launcher} has set {rank} to {found[0]} and {size} to {found[1]}; expected a rank "
            "below the number of processes"
        )
    return found


def _number(variables: Mapping[str, str], name: str, launcher: str, default: str = "") -> int:
    value = variables.get(name, default)
    if not value.isdecimal():
        raise UserError(
            f"{launcher} has started this process with {name} '{value}'; expected a number. Start "
            f"it by {launcher} again, or unset {launcher}'s variables to run it alone"
        )
    return int(value)
