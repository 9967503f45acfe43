"""A program: every run in two processes of torchrun's launcher, which one of them does not survive.

Its workers are forked from it, so that none has to import anything: torchrun itself would start
each from nothing.

usage: python -m tests.search.runs.elastic_runs IMAGES BASE
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from unittest import mock

import torch
from detectron2.utils import comm
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from detection.engine.processes import join_group, launched_place, leave_group, was_restarted
from detection.engine.resumable import ResumableTrainer
from detection.engine.user_errors import is_lost
from tests.search.runs.small_runs import (
    HALF,
    RUNS,
    copied_halfway,
    fixed_statistics,
    register,
    run_of,
)

PASSES = ("SOLVER.ACCUMULATE", "2")


def worker(images: Path, base: Path) -> None:
    """The runs one by one; after a restart, those that are not done, from their checkpoints."""
    failure = base / "failure"
    if failure.exists():  # once is enough
        sys.exit(1)
    torch.set_num_threads(1)
    place = launched_place(os.environ)
    assert place and place.size == 2
    join_group(place, on_gpu=False)
    register(base)
    try:
        _train(images, base, was_restarted(os.environ))
    except Exception as error:
        # the other process has died, and the launcher ends this one
        if not (is_lost(error) or "got signal" in str(error)):
            failure.write_text(traceback.format_exc())
        raise
    leave_group()


def _train(images: Path, base: Path, restarted: bool) -> None:
    for name in RUNS:
        done = base / "done" / name
        if comm.all_gather(done.exists())[0]:
            continue
        two, resumed = base / "two" / name, base / "one, then two" / name
        with copied_halfway(two, base / "half of two" / name), dying_once(base / "died" / name):
            run_of(name, images, base, two, restarted and two.exists())
        # the first half in one process, as one batch
        passes = () if name == "random" else PASSES
        run_of(name, images, base, resumed, True, *passes)
        comm.synchronize()
        if comm.is_main_process():
            done.mkdir(parents=True)
        comm.synchronize()


def dying_once(mark: Path) -> mock._patch[object]:
    """Kills the second process in the step behind the checkpoint, the first time."""
    step = ResumableTrainer.after_step

    def after_step(self: ResumableTrainer) -> None:
        if self.iter == HALF and comm.get_rank() == 1 and not mark.exists():
            mark.mkdir(parents=True)
            os.kill(os.getpid(), signal.SIGKILL)
        step(self)

    return mock.patch.object(ResumableTrainer, "after_step", after_step)


def main(images: Path, base: Path) -> None:
    """As ``torchrun --standalone --nproc-per-node 2 --max-restarts …`` does."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="runs",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=len(RUNS),
        start_method="fork",
    )
    with fixed_statistics():
        elastic_launch(config, worker)(images, base)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
