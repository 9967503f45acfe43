"""The folder of a run: claimed for one process, logged to, and never overwritten by accident."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import IO

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from backbones.errors import UserError
from backbones.files import write_atomic

LOGGERS = ("detectron2", "fvcore", "backbones", "detection", "search")
_TRACES = ("last_checkpoint", "metrics.json", "results.json")

# Open for the life of the process: closing a file gives its lock up.
_locks: dict[Path, IO[str]] = {}


def open_run(cfg: CfgNode, args: argparse.Namespace) -> Path:
    """Prepares ``cfg.OUTPUT_DIR`` for a run and returns it; every rank calls this.

    What Detectron2's ``default_setup`` does: creates the folder, logs to the console and to
    ``log.txt``, logs environment, arguments and configuration, writes ``config.yaml``, seeds the
    random generators (``SEED`` plus the rank). Before that it claims the folder: it refuses one
    where another process works, and one with the results of an earlier run unless the run is to
    be resumed or only evaluated.

    Raises:
        UserError: if the folder is taken, used, or cannot be written.
    """
    folder = Path(cfg.OUTPUT_DIR).expanduser()
    eval_only = bool(getattr(args, "eval_only", False))
    resume = bool(getattr(args, "resume", False))
    message = None
    if comm.is_main_process():
        try:
            _claim(folder, may_be_used=resume or eval_only)
            if not (eval_only and (folder / "config.yaml").exists()):
                write_atomic(folder / "config.yaml", cfg.dump())
        except UserError as error:
            message = str(error)
        except OSError as error:
            message = _cannot_write(folder, error)
    # All ranks fail together, else the others would wait for the first one.
    message = comm.all_gather(message)[0]
    if message is not None:
        raise UserError(message)
    rank = comm.get_rank()
    start_logging(folder, rank)
    _log_start(cfg, args, folder)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    return folder


def start_logging(folder: Path, rank: int = 0) -> None:
    """Sends the project's, Detectron2's and fvcore's loggers to the console and ``log.txt``.

    Only rank 0 writes to the console. Calling it again, for another run in the same process,
    moves the loggers there.
    """
    # Detectron2 remembers which handlers it made and never removes one, so that a second call
    # would print every line twice.
    setup_logger.cache_clear()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for handler in logger.handlers[:]:
            if type(handler) is logging.StreamHandler:
                logger.removeHandler(handler)
        setup_logger(str(folder), distributed_rank=rank, name=name)


def run_traces(folder: Path) -> list[str]:
    """The files that a run left in a folder: results, metrics and weights."""
    traces = [name for name in _TRACES if (folder / name).exists()]
    return traces + sorted(path.name for path in folder.glob("*.pth"))


def _claim(folder: Path, may_be_used: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder)
    traces = run_traces(folder)
    if traces and not may_be_used:
        raise UserError(
            f"OUTPUT_DIR '{folder}' holds an earlier run ({', '.join(traces[:3])}); continue it "
            "with --resume, or name another folder: OUTPUT_DIR output/other"
        )


def _lock(folder: Path) -> None:
    path = folder.resolve() / ".lock"
    if path in _locks:
        return
    file = open(path, "a+")  # noqa: SIM115  (open as long as the process lives)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise UserError(
            f"{owner} is working in OUTPUT_DIR '{folder}'; wait for it, stop it, or name another "
            "folder: OUTPUT_DIR output/other"
        ) from None
    except OSError as error:
        # Some network file systems have no locks: better unprotected than unusable.
        logging.getLogger(__name__).warning("no lock on '%s': %s", path, error)
        file.close()
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _locks[path] = file


def _cannot_write(folder: Path, error: OSError) -> str:
    return (
        f"cannot write to OUTPUT_DIR '{folder}' ({error.strerror or error}); name a folder that "
        "you may write to: OUTPUT_DIR output/other"
    )


def _log_start(cfg: CfgNode, args: argparse.Namespace, folder: Path) -> None:
    logger = logging.getLogger(__name__)
    logger.info("Rank %d of %d processes", comm.get_rank(), comm.get_world_size())
    logger.info("Device: %s", cfg.MODEL.DEVICE)
    logger.info("Environment:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    logger.info("Configuration, also in '%s':\n%s", folder / "config.yaml", cfg.dump())
