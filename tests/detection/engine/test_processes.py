"""Who starts the processes of a run, and which flags may stand beside that."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from backbones.arguments import argument_parser
from backbones.errors import UserError
from detection.engine import cli
from detection.engine.processes import (
    Place,
    check_processes,
    free_url,
    is_first_to_fail,
    launched_place,
    other_failed,
)

ROOT = Path(__file__).parents[3]
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SRUN = {
    **{"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "2", "SLURM_NTASKS": "8"},
    **{"SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "2", "SLURM_STEP_NODELIST": "gpu[07-08,11],x3"},
}
PROGRAM = """
import sys
from detectron2.utils import comm
from detection.engine import cli
def main(args):
    ranks = comm.all_gather((comm.get_rank(), comm.get_local_rank()))
    if comm.is_main_process():
        print("met", ranks, comm.get_local_size(), "resume" if args.resume else "afresh")
if __name__ == "__main__":
    cli.run(main, cli.argument_parser("A test.").parse_args())
"""


def parsed(*arguments: str) -> argparse.Namespace:
    return argument_parser("A test.").parse_args(arguments)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (TORCHRUN, Place(3, 8, 1, "env://", "torchrun")),
        (
            {**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"},
            Place(3, 8, 1, "env://", "torchrun", attempt=2),
        ),
        ({**SRUN, **TORCHRUN}, Place(3, 8, 1, "env://", "torchrun")),  # srun started torchrun
        ({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}, None),
        (SRUN, Place(5, 8, 2, "tcp://gpu07:19569", "srun")),
        (
            {**SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
            Place(5, 8, 2, "tcp://10.0.0.1:29500", "srun"),
        ),
        # a batch script and an interactive shell have the job's variables, too
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}, None),
        ({**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
    ],
)
def test_the_place_that_a_launcher_gives(variables: dict[str, str], expected: Place | None) -> None:
    assert launched_place(variables) == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "torchrun has started this process with RANK 'x'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "set RANK to 2 and WORLD_SIZE to 2"),
        ({**SRUN, "SLURM_STEP_NODELIST": ""}, "srun has started this process, but SLURM_STEP_N"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun has started this process"),
    ],
)
def test_launchers_that_do_not_say_enough(variables: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        launched_place(variables)


def test_an_address_may_be_named_under_srun() -> None:
    place = launched_place({**SRUN, "SLURM_STEP_NODELIST": ""}, "tcp://here:1")
    assert place == Place(5, 8, 2, "tcp://here:1", "srun")
    assert check_processes(parsed("--dist-url", "tcp://here:1"), place) == 0


@pytest.mark.parametrize(
    "flag", [("--num-gpus", "2"), ("--num-processes", "2"), ("--num-machines", "2")]
)
def test_a_launcher_alone_says_how_many(flag: tuple[str, str]) -> None:
    place = launched_place(TORCHRUN)
    message = f"{flag[0]} is 2, but torchrun has started this process as 4 of 8; leave {flag[0]}"
    with pytest.raises(UserError, match=message):
        check_processes(parsed(*flag), place)


def test_a_launcher_may_start_processes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    args = parsed("--num-gpus", "0")
    assert check_processes(args, launched_place(TORCHRUN)) == args.num_gpus == 0
    with pytest.raises(UserError, match="process 2 of this machine, which has 1 usable GPUs"):
        check_processes(parsed(), launched_place(TORCHRUN))
    bound = parsed()  # srun can show each process its own GPU alone
    assert check_processes(bound, launched_place(SRUN)) == 0
    assert bound.num_gpus == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), 0),
        (("--num-processes", "1"), 0),
        (("--num-processes", "3"), 3),
        (("--num-processes", "1", "--num-machines", "2", "--dist-url", "tcp://a:1"), 1),
    ],
)
def test_processes_on_the_cpu(flags: tuple[str, ...], expected: int) -> None:
    assert check_processes(parsed("--num-gpus", "0", *flags), None) == expected


def start(folder: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-W", "ignore", *words, str(program), "--num-gpus", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def test_torchrun(tmp_path: Path) -> None:
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    out, err = start(tmp_path, *words, TORCHELASTIC_RESTART_COUNT="0").communicate(timeout=300)
    assert "met [(0, 0), (1, 1)] 2 afresh" in out, err


@pytest.mark.slow
def test_srun(tmp_path: Path) -> None:
    port = free_url().rpartition(":")[2]
    step = {"SLURM_STEP_NUM_TASKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    tasks = [start(tmp_path, SLURM_PROCID=rank, SLURM_LOCALID=rank, **step) for rank in ("0", "1")]
    (out, err), (silent, _) = [task.communicate(timeout=300) for task in tasks]
    assert "met [(0, 0), (1, 1)] 2 afresh" in out, err
    assert not silent


def test_a_tool_of_one_process_is_no_part_of_a_launch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        cli.run_tool(print, parsed())
    assert "this tool is one process, but torchrun has started 8" in capsys.readouterr().err


def test_one_of_the_processes_that_fail_says_why() -> None:
    store = dist.HashStore()
    assert not other_failed(store)
    assert is_first_to_fail(store)
    assert not is_first_to_fail(store)
    assert other_failed(store) and other_failed(store, wait=True)


def test_a_store_that_is_gone_keeps_nobody_silent() -> None:
    class Gone:
        def check(self, *_: Any) -> bool:
            raise RuntimeError("Connection reset by peer")

        add = check

    store: Any = Gone()
    assert not other_failed(store, wait=True)
    assert is_first_to_fail(store)
