"""Loader processes that are killed, and what the run says of it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time
from multiprocessing import resource_sharer

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from backbones import UserError
from detection.engine.cli import run
from detection.engine.loader_deaths import explaining_deaths, loader_death
from detection.engine.user_errors import without_tracebacks_of_user_errors

SHARED_MEMORY = (
    "unable to allocate shared memory(shm) for file </torch_7_1_0>: No space left on device (28)"
)


class _Ended(Dataset[Tensor]):
    """Its third item ends the process that reads it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        if index == 2:
            if self.number > 100:
                os._exit(self.number - 100)
            os.kill(os.getpid(), self.number)
        return torch.zeros(3)


def _read(args: argparse.Namespace) -> None:
    list(DataLoader(_Ended(args.number), num_workers=1))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (
            signal.SIGKILL,
            r"was killed \(SIGKILL\), as a system without memory left does; .* lower",
        ),
        (signal.SIGBUS, r"ran out of shared memory; .* --shm-size 8g.* DATALOADER.NUM_WORKERS"),
        (
            signal.SIGSEGV,
            r"was ended by a signal \(Segmentation fault\), .*NUM_WORKERS 0",
        ),
        (103, r"has ended by itself .*; see with DATALOADER.NUM_WORKERS 0 why"),
    ],
)
def test_the_cause_is_named(number: int, expected: str) -> None:
    line = rf"a data loader's process \(\d+\) {expected}"
    with pytest.raises(UserError, match=line) as caught:
        explaining_deaths(lambda: _read(argparse.Namespace(number=number)))
    assert str(caught.value).endswith("; continue with --resume")
    assert "\n" not in str(caught.value)


class _Unreachable(_Ended):
    """Its process is no longer reached for a tensor that it has sent, and ends a moment later."""

    def __getitem__(self, index: int) -> Tensor:
        if index == 1:
            time.sleep(0.3)  # the first item is on its way
            resource_sharer.stop()
            time.sleep(0.7)
            os.kill(os.getpid(), self.number)
        return torch.zeros(3)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_broken_connection_is_the_first_sign_of_it() -> None:
    seen: list[type[BaseException]] = []

    def read() -> None:
        batches = iter(DataLoader(_Unreachable(signal.SIGKILL), num_workers=1))
        time.sleep(0.7)
        try:
            next(batches)
        except BaseException as error:
            seen.append(type(error))
            raise

    with pytest.raises(UserError, match=r"process \(\d+\) was killed"):
        explaining_deaths(read)
    assert not issubclass(seen[0], RuntimeError)


def test_connections_of_others_stay_as_they_are() -> None:
    def reset() -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ConnectionResetError):
        explaining_deaths(reset)


def test_a_tool_ends_with_that_line(capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(
        number=signal.SIGKILL,
        **{"num_gpus": 0, "num_processes": None, "num_machines": 1, "machine_rank": 0},
        **{"dist_url": "auto", "resume": False},
    )
    with pytest.raises(SystemExit) as ended:
        run(_read, args)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: a data loader's process (")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Caught RuntimeError in DataLoader worker process 0.\n{SHARED_MEMORY}", "shared memory"),
        ("unable to mmap 64 bytes from file </torch_7_2>: Cannot allocate", "shared memory"),
        (
            "unable to open shared memory object </torch_7> in mode 2: Too many open files",
            "open files",
        ),
        ("received 0 items of ancdata", "open files"),
    ],
)
def test_what_is_said_of_shared_memory(text: str, expected: str) -> None:
    assert expected in str(loader_death(RuntimeError(text)))


def test_other_errors_stay_as_they_are() -> None:
    assert loader_death(RuntimeError("CUDA error: out of memory")) is None
    assert loader_death(OSError(SHARED_MEMORY)) is None

    def mismatch() -> None:
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch") as caught:
        explaining_deaths(mismatch)
    assert not isinstance(caught.value, UserError)


def test_no_traceback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("detectron2.engine.train_loop")
    with without_tracebacks_of_user_errors():
        for text in (SHARED_MEMORY, "size mismatch"):
            try:
                raise RuntimeError(text)
            except RuntimeError:
                logger.exception("Exception during training:")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "size mismatch"
