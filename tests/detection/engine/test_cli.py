from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from backbones.errors import UserError
from detection.engine import cli

ROOT = Path(__file__).parents[3]


def _run(main: Any, *arguments: str) -> None:
    cli.run(main, cli.argument_parser("A test.").parse_args(arguments))


def _error_of(capsys: pytest.CaptureFixture[str], main: Any, *arguments: str) -> str:
    """The one line on stderr of a run that must end with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        _run(main, *arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def _wrong_path(args: argparse.Namespace) -> None:
    raise UserError("no file at 'here';\ncheck the path: a")


class _BrokenImage(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        try:
            raise OSError("cannot read: broken")
        except OSError:
            raise UserError(f"the image '{index}.png' is broken: replace it")  # noqa: B904


def _wrong_data(args: argparse.Namespace) -> None:
    next(iter(DataLoader(_BrokenImage(), num_workers=1)))


def _bug(args: argparse.Namespace) -> None:
    raise KeyError("a bug")


def _interrupt(args: argparse.Namespace) -> None:
    raise KeyboardInterrupt


def _fine(args: argparse.Namespace) -> None:
    print("ran with", args.opts)


def test_a_run_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    _run(_fine, "--num-gpus", "0", "SEED", "-1")
    assert "ran with ['SEED', '-1']" in capsys.readouterr().out


def test_user_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = _error_of(capsys, _wrong_path, "--num-gpus", "0")
    assert line == "error: no file at 'here'; check the path: a"


def test_user_error_of_a_data_loader_worker(capsys: pytest.CaptureFixture[str]) -> None:
    line = _error_of(capsys, _wrong_data, "--num-gpus", "0")
    assert line == "error: the image '0.png' is broken: replace it"


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(KeyError, match="a bug"):
        _run(_bug, "--num-gpus", "0")


def test_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _run(_interrupt, "--num-gpus", "0")
    assert caught.value.code == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "--resume" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--num-gpus", "64"], "--num-gpus is 64, but this machine has"),
        (["--num-gpus", "-1"], "--num-gpus is -1"),
        (["--num-machines", "0"], "--num-machines 0"),
        (["--num-machines", "2", "--machine-rank", "2"], "--machine-rank is 2"),
        (["--num-machines", "2", "--num-gpus", "0"], "--num-machines above 1 needs GPUs"),
        (["--num-processes", "0"], "--num-processes is 0"),
    ],
)
def test_impossible_processes(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert expected in _error_of(capsys, _fine, *arguments)


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # of libraries, in the new processes
    monkeypatch.syspath_prepend(ROOT)  # for them to find this module
    return "--num-gpus", "0", "--num-processes", "2"


def _wrong_on_one(args: argparse.Namespace) -> None:
    """The other one waits for it."""
    if comm.get_rank() == 1:
        raise UserError("no file at 'here';\ncheck the path: a")
    comm.synchronize()


def _killed(args: argparse.Namespace) -> None:
    if comm.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.synchronize()


def _asked(args: argparse.Namespace) -> None:
    """Slurm signals all processes of a job."""
    os.kill(os.getpid(), signal.SIGTERM)


def _start_method(args: argparse.Namespace) -> None:
    """That of its loaders."""
    raise UserError(f"loaders start by {multiprocessing.get_start_method()}")


def test_loaders_of_a_process_start_as_those_of_the_tool(
    capfd: Any, two_processes: tuple[str, ...]
) -> None:
    """And not as the process itself, which imports everything anew."""
    line = _error_of(capfd, _start_method, *two_processes)
    assert line == f"error: loaders start by {multiprocessing.get_start_method()}"


def test_user_error_in_one_process(capfd: Any, two_processes: tuple[str, ...]) -> None:
    line = _error_of(capfd, _wrong_on_one, *two_processes)
    assert line == "error: no file at 'here'; check the path: a"


def test_a_killed_process(capfd: Any, two_processes: tuple[str, ...]) -> None:
    line = _error_of(capfd, _killed, *two_processes)
    assert line.startswith("error: process 1 of 2 was killed (SIGKILL), as a system without memory")


FAILING = """
from detection.engine.cli import argument_parser, run
from tests.detection.engine.test_cli import _wrong_on_one
if __name__ == "__main__":
    run(_wrong_on_one, argument_parser("A test.").parse_args())
"""


def test_of_torchruns_processes_the_one_that_fails_says_why(tmp_path: Path) -> None:
    """The other one, which loses it, is silent; torchrun reports besides."""
    script = tmp_path / "tool.py"
    script.write_text(FAILING)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *launcher, str(script), "--num-gpus", "0"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode
    own = done.stderr.partition("torch/distributed/elastic/")[0]
    assert [line for line in own.splitlines() if "error" in line.lower()] == [
        "error: no file at 'here'; check the path: a"
    ]
    assert "Traceback" not in own and done.stderr.count("error: ") == 1


def test_processes_that_are_asked_to_leave(capfd: Any, two_processes: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        _run(_asked, *two_processes)
    assert caught.value.code == 128 + signal.SIGTERM
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("stopped by SIGTERM; the same command with --resume")


def test_machines_need_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    line = _error_of(capsys, _fine, "--num-processes", "2", "--num-machines", "2")
    assert "--dist-url" in line


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        _run(_fine, "--help")
    text = capsys.readouterr().out
    for word in ("A test.", "--config-file", "--resume", "--dist-url", "OUTPUT_DIR", "0.001"):
        assert word in text


def test_as_a_script(tmp_path: Path) -> None:
    script = tmp_path / "tool.py"
    script.write_text(
        "from detection.engine.cli import argument_parser, load_config, run\n"
        "if __name__ == '__main__':\n"
        "    run(load_config, argument_parser('Trains something.').parse_args())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), "--num-gpus", "0", "SOLVER.MAX_ITR", "3"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: the command line sets the unknown key 'SOLVER.MAX_ITR'; "
        "did you mean 'SOLVER.MAX_ITER'?"
    ]
