"""Where a study's jobs go, and the options that a command line may give them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.extras import require

DAY_MIN = 1440
"""Minutes that a job may take where ``timeout_min`` does not say."""

LAST_SIGNAL = "USR1"
"""What a job gets :data:`LAST_SIGNAL_S` seconds before the end of its time: trainings then leave a
checkpoint. At submitit's own, USR2, they would end without."""

LAST_SIGNAL_S = 90
"""As much as a training needs to end a step and to write its checkpoint."""

_NUMBERS: Mapping[str, type[int] | type[float]] = {
    "timeout_min": int,
    "cpus_per_task": int,
    "gpus_per_node": int,
    "mem_gb": float,
}
_WORDS = (
    *("partition", "account", "qos", "constraint", "gres", "nodelist", "exclude"),
    *("mem_per_cpu", "mem_per_gpu", "reservation", "setup"),
)
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "slurm": (*_NUMBERS, *_WORDS),
    "local": ("timeout_min", "cpus_per_task", "gpus_per_node"),
}
"""Of the jobs of each kind of cluster: those of sbatch, two of submitit's names for them
(``timeout_min``, ``mem_gb``), and ``setup``, a shell command before each job."""

_PROGRAMS = ("sbatch", "srun", "sacct", "scancel")


@dataclass(frozen=True)
class Cluster:
    """Where jobs go.

    Attributes:
        kind: a key of ``OPTIONS``.
        folder: of logs, results and what submitit needs; all machines see it.
        options: of every job.
    """

    kind: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        """Of every job."""
        return int(self.options.get("cpus_per_task", 1))

    @property
    def elsewhere(self) -> bool:
        """Whether its machines are others than this one."""
        return self.kind != "local"

    def __str__(self) -> str:
        """Kind and options, as the hardware of a study."""
        shown = " ".join(f"{name}={value}" for name, value in self.options.items())
        return f"jobs of {self.kind} ({shown})" if shown else f"jobs of {self.kind}"


def cluster_of(kind: str, options: Sequence[tuple[str, str]], folder: Path) -> Cluster:
    """A cluster by its name, with the options of its jobs.

    Raises:
        UserError: if kind or option is unknown, a number is none, submitit is missing, or this
            machine cannot send jobs.
    """
    if kind not in OPTIONS:
        raise UserError(f"--cluster is '{kind}'; expected {' or '.join(OPTIONS)}")
    found: dict[str, Any] = {}
    for name, text in options:
        if name not in OPTIONS[kind]:
            raise UserError(
                f"--cluster-options has '{name}', which jobs of {kind} do not have; expected some "
                f"of {', '.join(OPTIONS[kind])}"
            )
        found[name] = _number(name, text) if name in _NUMBERS else text
    require("submitit", extra="cluster")
    if os.name == "nt":
        raise UserError("--cluster needs Linux or macOS; leave it out")
    if kind == "slurm":
        for program in _PROGRAMS:
            if shutil.which(program) is None:
                raise UserError(
                    f"--cluster is slurm, but this machine has no '{program}'; start it on a "
                    "machine that can send jobs, or use --workers"
                )
    return Cluster(kind, folder, found)


def _number(name: str, text: str) -> int | float:
    kind = _NUMBERS[name]
    least = 0 if name == "gpus_per_node" else 1
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not least <= value < 1e9:
        raise UserError(
            f"--cluster-options has {name}={text}; expected a{'n integer' * (kind is int)}"
            f"{' number' * (kind is float)} of {least} or more"
        )
    return value


def most_jobs(cluster: Cluster) -> int:
    """Jobs at a time where the command does not say: the queue's own matter, or one per core."""
    return 100_000 if cluster.kind == "slurm" else os.cpu_count() or 1


def submitit_parameters(cluster: Cluster) -> dict[str, Any]:
    """The options of a cluster's jobs as submitit names them."""
    options = {"timeout_min": DAY_MIN, "cpus_per_task": 1, **cluster.options}
    found: dict[str, Any] = {"name": "spnas", "stderr_to_stdout": True}
    if cluster.kind == "slurm":
        found["slurm_additional_parameters"] = {"signal": f"{LAST_SIGNAL}@{LAST_SIGNAL_S}"}
    for name, value in options.items():
        if name == "reservation":
            found["slurm_additional_parameters"][name] = value
        elif name == "setup":
            found["slurm_setup"] = [value]
        else:
            found[name if name in _NUMBERS else f"slurm_{name}"] = value
    return found
