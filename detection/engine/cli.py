"""How the command of a stage starts and ends; its arguments are `backbones.arguments`' own."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing.spawn import ProcessExitedException

from backbones.arguments import argument_parser
from backbones.errors import UserError
from backbones.files import write_atomic
from backbones.scratch import remove_abandoned, scratch_folder
from detection.engine.config_file import load_config
from detection.engine.console import FILE_ONLY, log_to
from detection.engine.user_errors import user_message

__all__ = ["argument_parser", "load_config", "run", "run_tool"]

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def run(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Runs ``main(args)`` in this process or in one process per GPU, and ends it as a tool should.

    A :class:`UserError` becomes one line on stderr and exit code 2, Ctrl-C one line and exit code
    130. Any other exception keeps its traceback and Python's exit code 1.

    Args:
        main: a function at the top level of a module, so that new processes can import it.
        args: what :func:`argument_parser` parsed.
    """
    with _ending("the same command with --resume continues from the last checkpoint"):
        _check_processes(args)
        with scratch_folder("run") as folder:
            _launch(main, args, folder / "error")


def run_tool(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """:func:`run` for tools of one process, whose arguments are their own."""
    with _ending("the same command goes on with what is not done yet"):
        _call(main, args)


@contextlib.contextmanager
def _ending(after_interruption: str) -> Iterator[None]:
    remove_abandoned()
    # A console, or a file that it is redirected to, may not know every letter that is printed.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except UserError as error:
        message = f"error: {user_message(error)}"
        logger = logging.getLogger(__name__)
        if logger.hasHandlers():  # else Python itself would print it
            logger.error(message, extra=FILE_ONLY)  # its place is the last line
        _exit(message, EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _exit(f"interrupted; {after_interruption}", EXIT_INTERRUPTED)


def _launch(main: Callable[..., object], args: argparse.Namespace, error_file: Path) -> None:
    if args.num_gpus * args.num_machines <= 1:
        _call(main, args)
        return
    # That the other processes are stopped after a failure is no news for the user.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    try:
        launch(
            _worker,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args, str(error_file)),
        )
    except ProcessExitedException:
        if error_file.exists():
            raise UserError(error_file.read_text(encoding="utf-8")) from None
        raise


def _worker(main: Callable[..., object], args: Any, error_file: str) -> None:
    """``main`` in a spawned process; a user's mistake is handed to the parent through a file."""
    try:
        _call(main, args)
    except UserError as error:
        write_atomic(error_file, user_message(error))
        sys.exit(EXIT_USER_ERROR)


def _call(main: Callable[..., object], args: argparse.Namespace) -> None:
    # What is logged before the run folder is open goes to the console, not to stderr.
    for name in ("detection", "search"):
        if not logging.getLogger(name).handlers:
            log_to(name, rank=comm.get_rank())
    main(args)


def _check_processes(args: argparse.Namespace) -> None:
    """Fills in ``--num-gpus`` and insists on processes that can be started."""
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if args.num_gpus is None:
        args.num_gpus = min(available, 1)
    if args.num_gpus < 0 or args.num_machines < 1:
        raise UserError(
            f"--num-gpus is {args.num_gpus} and --num-machines {args.num_machines}; expected 0 or "
            "more GPUs and at least one machine"
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
    if args.num_machines > 1 and args.num_gpus == 0:
        raise UserError("--num-machines above 1 needs GPUs; use --num-gpus 1 or more")
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError(
            "--num-machines above 1 needs --dist-url, the same on every machine, e.g. "
            "tcp://FIRST_MACHINE:29500"
        )


def _exit(message: str, code: int) -> None:
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
