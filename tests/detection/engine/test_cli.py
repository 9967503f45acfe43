from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
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
    ],
)
def test_impossible_processes(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert expected in _error_of(capsys, _fine, *arguments)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two spawned processes on the CPU in place of Detectron2's two on GPUs."""

    def launch(function: Any, num_gpus: int, *, args: tuple[Any, ...], **_: Any) -> None:
        mp.spawn(_spawned, nprocs=num_gpus, args=(function, args))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cli, "launch", launch)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # of libraries, in the new processes
    monkeypatch.syspath_prepend(ROOT)  # for them to find this module


def _spawned(rank: int, function: Any, args: tuple[Any, ...]) -> None:
    function(*args)


@pytest.mark.usefixtures("two_gpus")
def test_user_error_in_spawned_processes(capfd: Any) -> None:
    line = _error_of(capfd, _wrong_path, "--num-gpus", "2")
    assert line == "error: no file at 'here'; check the path: a"


def test_bugs_in_spawned_processes(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="a bug"):
        cli._worker(_bug, argparse.Namespace(), str(tmp_path / "error"))
    assert not (tmp_path / "error").exists()


@pytest.mark.usefixtures("two_gpus")
def test_machines_need_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    line = _error_of(capsys, _fine, "--num-gpus", "2", "--num-machines", "2")
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
