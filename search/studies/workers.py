"""Where the independent runs of a study take place: here, in several processes, on a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from detection.engine.provenance import provenance
from search.studies.arguments import pairs
from search.studies.cluster.jobs import Call, on_cluster
from search.studies.cluster.options import Cluster, cluster_of, most_jobs
from search.workers import in_processes, worker_threads

__all__ = ["HERE", "Call", "Workers", "run_calls", "workers_of"]


@dataclass(frozen=True)
class Workers:
    """Where calls run.

    Attributes:
        count: at a time.
        cluster: whose jobs they are; None has them on this machine: one after the other in this
            process, or several in processes of their own.
    """

    count: int = 1
    cluster: Cluster | None = None

    @property
    def here(self) -> bool:
        """Whether all run in this process."""
        return self.count == 1 and self.cluster is None

    def facts(self, threads: int | None = None, device: str = "cpu") -> dict[str, str | None]:
        """Command, code, hardware and versions of a study, for its file.

        Args:
            threads: of each process on this machine; by default those of :func:`run_calls`.
            device: ``cpu`` or ``cuda``, that it computes on.
        """
        if self.cluster and self.cluster.elsewhere:
            return {**provenance(), "hardware": str(self.cluster)}
        own = self.cluster.threads if self.cluster else threads or worker_threads(self.count)
        return provenance(device, self.count, own)


HERE = Workers()
"""One call after the other, in this process."""


def workers_of(args: argparse.Namespace, output: Path, default: int = 1) -> Workers:
    """What :func:`search.studies.arguments.add_workers` parsed.

    Args:
        args: of the tool.
        output: file or folder of the study; jobs are kept beside it, in ``<its name>_jobs``.
        default: how many at a time on this machine, where the command does not say.

    Raises:
        UserError: for a number below 1, an unknown cluster or option, one that is not at hand, or
            a missing package.
    """
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers is {args.workers}; expected 1 or more")
    options = pairs("--cluster-options", args.cluster_options)
    if args.cluster is None:
        if options:
            raise UserError(
                f"--cluster-options has '{options[0][0]}', but no cluster is named; add --cluster "
                "slurm, or leave it out"
            )
        return Workers(args.workers or default)
    folder = output.parent / f"{output.stem}_jobs"
    cluster = cluster_of(args.cluster, options, folder)
    return Workers(args.workers or most_jobs(cluster), cluster)


def run_calls(calls: Sequence[Call], workers: Workers) -> Iterator[tuple[int, Any]]:
    """Makes calls that do not depend on each other; results as they come.

    Args:
        calls: in the order in which they are begun.
        workers: 1 on this machine makes them one by one in this process; more, in processes of one
            thread each; on a cluster, each is a job.

    Yields:
        Which call, by its index, and what it returned.

    Raises:
        UserError: of a cluster, when all others have ended, if one has failed. On this machine the
            first error ends the work.
    """
    if workers.cluster:
        yield from on_cluster(calls, workers.count, workers.cluster)
    elif workers.count > 1:
        yield from in_processes(_made, [(call,) for call in calls], workers.count)
    else:
        for index, call in enumerate(calls):
            yield index, call.run()


def _made(call: Call) -> Any:
    return call.run()
