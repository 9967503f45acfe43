"""How the command of a stage starts and ends; its arguments are `backbones.arguments`' own."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.multiprocessing as mp
from detectron2.utils import comm
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
)

from backbones.arguments import argument_parser
from backbones.errors import UserError
from backbones.files import write_atomic
from backbones.scratch import remove_abandoned, scratch_folder
from detection.engine.config_file import load_config
from detection.engine.console import FILE_ONLY, log_to
from detection.engine.loader_deaths import explaining_deaths
from detection.engine.preemption import SIGNALS, Preempted, forwarded, listening
from detection.engine.processes import (
    Place,
    check_processes,
    free_url,
    is_first_to_fail,
    join_group,
    launched_place,
    leave_group,
    other_failed,
    was_restarted,
)
from detection.engine.user_errors import as_user_error, is_lost, user_message

__all__ = ["argument_parser", "load_config", "run", "run_tool"]

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

_LAST_WORDS = 10
"""Seconds that the processes of a run have to end by themselves when one of them has failed."""

_KILLED = -9
"""Exit code of a process that SIGKILL ended; Windows has no such signal."""

Main = Callable[[argparse.Namespace], object]


def run(main: Main, args: argparse.Namespace) -> None:
    """Runs ``main(args)`` in this process or in one process per GPU, and ends it as a tool should.

    Started by torchrun or srun, this process is one of theirs.

    A :class:`UserError` becomes one line on stderr and exit code 2, Ctrl-C one line and exit code
    130. Any other exception keeps its traceback and Python's exit code 1.

    Args:
        main: a function at the top level of a module, so that new processes can import it.
        args: what :func:`argument_parser` parsed.
    """
    with _ending("the same command with --resume continues from the last checkpoint"), listening():
        place = launched_place(os.environ, args.dist_url)
        count = check_processes(args, place)
        args.resume = args.resume or was_restarted(os.environ)
        if place:
            _call_in_group(main, args, place)
        elif count:
            with scratch_folder("run") as folder:
                _start(main, args, count, folder / "error")
        else:
            _call(main, args)


def run_tool(main: Main, args: argparse.Namespace) -> None:
    """:func:`run` for tools of one process, whose arguments are their own."""
    with _ending("the same command goes on with what is not done yet"):
        if place := launched_place(os.environ):
            raise UserError(
                f"this tool is one process, but {place.launcher} has started {place.size}; start "
                f"it without {place.launcher}"
            )
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
    except (UserError, OSError) as error:
        if (mistake := as_user_error(error)) is None:
            raise
        message = f"error: {user_message(mistake)}"
        logger = logging.getLogger(__name__)
        if logger.hasHandlers():  # else Python itself would print it
            logger.error(message, extra=FILE_ONLY)  # its place is the last line
        _exit(message, EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _exit(f"interrupted; {after_interruption}", EXIT_INTERRUPTED)
    except Preempted as stop:
        _exit(f"{stop}; {after_interruption}", stop.exit_code)


def _start(main: Main, args: argparse.Namespace, count: int, error_file: Path) -> None:
    """Starts the processes of this machine and waits for their end."""
    # That the other processes are stopped after a failure is no news for the user.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    url = free_url() if args.dist_url == "auto" else args.dist_url
    arguments = (main, args, count, url, str(error_file))
    context = mp.start_processes(_started, arguments, count, join=False, start_method="spawn")
    assert isinstance(context, ProcessContext)
    with forwarded(context.pids()) as signals:
        try:
            while not context.join(grace_period=_LAST_WORDS):
                pass
        except (ProcessExitedException, ProcessRaisedException) as error:
            # a process whose neighbour is gone may be the first to be noticed
            if error_file.exists():
                raise UserError(error_file.read_text(encoding="utf-8")) from None
            _explain(context, error, signals)
            raise


def _explain(
    context: ProcessContext,
    error: ProcessExitedException | ProcessRaisedException,
    signals: Sequence[int],
) -> None:
    """Raises what is to be said of a run that a signal has ended."""
    code = error.exit_code if isinstance(error, ProcessExitedException) else 0
    if signals or code - 128 in SIGNALS:
        raise Preempted(signals[0] if signals else code - 128) from None
    codes = [process.exitcode for process in context.processes]
    if _KILLED in codes and (code or is_lost(error)):
        raise UserError(
            f"process {codes.index(_KILLED)} of {len(codes)} was killed (SIGKILL), as a "
            "system without memory left does; free some, or lower SOLVER.IMS_PER_BATCH (or raise "
            "SOLVER.ACCUMULATE) or DATALOADER.NUM_WORKERS, and continue with --resume"
        ) from None


def _started(
    local_rank: int, main: Main, args: argparse.Namespace, count: int, url: str, error_file: str
) -> None:
    """``main`` in a process of its own; a user's mistake is handed to the parent through a file."""
    # the platform's own, else loaders would start as this process did: each with all its imports
    # and a copy of the data set, again at every evaluation
    multiprocessing.set_start_method(None, force=True)
    if not args.num_gpus:
        torch.set_num_threads(max(torch.get_num_threads() // count, 1))
    rank = args.machine_rank * count + local_rank
    try:
        with listening():
            _call_in_group(main, args, Place(rank, count * args.num_machines, local_rank, url))
    except (UserError, OSError) as error:
        if (mistake := as_user_error(error)) is None:
            raise
        if not Path(error_file).exists():
            write_atomic(error_file, user_message(mistake))
        sys.exit(EXIT_USER_ERROR)
    except Preempted as stop:
        sys.exit(stop.exit_code)


def _call_in_group(main: Main, args: argparse.Namespace, place: Place) -> None:
    store = join_group(place, on_gpu=args.num_gpus > 0)
    try:
        _call(main, args)
        leave_group()
    except Preempted:
        if place.launcher and other_failed(store):  # and the launcher ends the rest
            sys.exit(EXIT_USER_ERROR)
        raise
    except (UserError, OSError, RuntimeError) as error:
        mistake = as_user_error(error)
        # without a launcher, the process that started this one sees which has failed, and how
        if not place.launcher or not (mistake or is_lost(error)):
            raise
        if other_failed(store, wait=mistake is None) or not is_first_to_fail(store):
            sys.exit(EXIT_USER_ERROR)
        raise mistake or UserError(_lost_another(place)) from None


def _lost_another(place: Place) -> str:
    return (
        f"process {place.rank} of {place.size} has lost another one, which says why if it failed "
        "by itself; one that says nothing was killed, as a system without memory does: free some, "
        "or lower SOLVER.IMS_PER_BATCH (or raise SOLVER.ACCUMULATE) or DATALOADER.NUM_WORKERS, and "
        "continue with --resume"
    )


def _call(main: Main, args: argparse.Namespace) -> None:
    # What is logged before the run folder is open goes to the console, not to stderr.
    for name in ("detection", "search"):
        if not logging.getLogger(name).handlers:
            log_to(name, rank=comm.get_rank())
    explaining_deaths(lambda: main(args))


def _exit(message: str, code: int) -> None:
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
