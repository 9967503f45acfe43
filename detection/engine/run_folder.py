"""The folder of a run: claimed for one process, logged to, and never overwritten by accident."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
import yaml

from backbones.errors import UserError
from backbones.file_lock import try_lock
from backbones.files import write_atomic
from detection.engine.console import FILE_ONLY, LOGGERS, log_to
from detection.engine.provenance import provenance

if TYPE_CHECKING:  # Detectron2's file access needs fcntl on POSIX, and a folder's lock does not
    from detectron2.config import CfgNode

EVALUATION_FOLDER = "evaluation"
"""Below a run's folder: of ``--eval-only``, which leaves all else in it as it is."""

_TRACES = ("last_checkpoint", "metrics.json", "results.json")

# What `backbones.files.atomic_path` names files that are not whole yet.
_UNFINISHED = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")

# Open for the life of the process: closing a file gives its lock up.
_locks: dict[Path, IO[str]] = {}


def open_run(cfg: CfgNode, args: argparse.Namespace, notes: Sequence[str] = ()) -> Path:
    """Prepares the folder of a run and returns it; every rank calls this.

    It is ``cfg.OUTPUT_DIR``, or ``evaluation`` in it for a run that only evaluates.

    What Detectron2's ``default_setup`` does: creates the folder, logs to the console and to
    ``log.txt``, logs environment, arguments and configuration, writes ``config.yaml``, seeds the
    random generators (``SEED`` plus the rank). Before that it claims the folder: it refuses one
    where another process works, and one with the results of an earlier run unless the run is to
    be resumed or only evaluated. Unfinished files of a process that was killed are removed.

    Args:
        cfg: of the run.
        args: of the command.
        notes: lines to log before anything else of the run.

    Raises:
        UserError: if the folder is taken, used, or cannot be written.
    """
    from detectron2.utils import comm
    from detectron2.utils.env import seed_all_rng

    eval_only = bool(getattr(args, "eval_only", False))
    folder = Path((evaluation_config(cfg) if eval_only else cfg).OUTPUT_DIR).expanduser()
    resume = bool(getattr(args, "resume", False))
    message, changed = None, []
    if comm.is_main_process():
        try:
            _claim(folder, may_be_used=resume or eval_only)
            if resume and (folder / "last_checkpoint").exists():
                changed = changed_keys(folder / "config.yaml", cfg)
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
    for note in notes:
        logging.getLogger(__name__).info("%s", note)
    if changed:
        logger = logging.getLogger(__name__)
        logger.warning("Resuming with other values than before: %s", ", ".join(changed))
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    return folder


def changed_keys(file: Path, cfg: CfgNode) -> list[str]:
    """What a configuration changes in the one that a run was started with.

    Args:
        file: ``config.yaml`` of the run; one that is missing or cut changes nothing.
        cfg: the configuration now.

    Returns:
        ``KEY OLD → NEW`` for every key of both but ``OUTPUT_DIR``.
    """
    try:
        before = _flat(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    now = _flat(yaml.safe_load(cfg.dump()))
    return [
        f"{key} {old} → {now[key]}"
        for key, old in before.items()
        if key in now and key != "OUTPUT_DIR" and old != now[key]
    ]


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def evaluation_config(cfg: CfgNode) -> CfgNode:
    """The configuration with ``OUTPUT_DIR/evaluation`` as its folder, for ``--eval-only``."""
    own = cfg.clone()
    own.defrost()
    own.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, EVALUATION_FOLDER)
    return own


def start_logging(folder: Path, rank: int = 0) -> None:
    """Sends the project's, Detectron2's and fvcore's loggers to the console and ``log.txt``.

    Only rank 0 writes to the console, and there only what people read while they wait. Calling
    it again, for another run in the same process, moves the loggers there.
    """
    for name in LOGGERS:
        log_to(name, folder, rank)


def run_traces(folder: Path) -> list[str]:
    """The files that a run left in a folder: results, metrics and weights."""
    traces = [name for name in _TRACES if (folder / name).exists()]
    return traces + sorted(path.name for path in folder.glob("*.pth"))


def _claim(folder: Path, may_be_used: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder)
    if folder.resolve() / ".lock" in _locks:
        _remove_unfinished(folder)
    traces = run_traces(folder)
    if traces and not may_be_used:
        raise UserError(
            f"OUTPUT_DIR '{folder}' holds an earlier run ({', '.join(traces[:3])}); continue it "
            "with --resume, or name another folder: OUTPUT_DIR output/other"
        )


def _remove_unfinished(folder: Path) -> None:
    """Removes what a killed process was writing, but not below a folder of another run."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not Path(place, name, ".lock").exists()]
        for name in filter(_UNFINISHED.fullmatch, files):
            Path(place, name).unlink(missing_ok=True)


def _lock(folder: Path) -> None:
    path = folder.resolve() / ".lock"
    if path in _locks:
        return
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (open as long as the process lives)
    try:
        locked = try_lock(file)
    except OSError as error:
        # Some network file systems have no locks: better unprotected than unusable.
        logging.getLogger(__name__).warning("no lock on '%s': %s", path, error)
        file.close()
        return
    if not locked:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise UserError(
            f"{owner} is working in OUTPUT_DIR '{folder}'; wait for it, stop it, or name another "
            "folder: OUTPUT_DIR output/other"
        )
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
    from detectron2.utils import comm
    from detectron2.utils.collect_env import collect_env_info

    logger = logging.getLogger(__name__)
    rank, count = comm.get_rank(), comm.get_world_size()
    logger.info("%s", shlex.join([*Path(sys.argv[0]).name.split(), *sys.argv[1:]]))
    processes = f", {count} processes" if count > 1 else ""
    where = folder / "log.txt"
    logger.info("Run in '%s' on %s%s; more in '%s'", folder, cfg.MODEL.DEVICE, processes, where)
    logger.info("Rank %d of %d processes", rank, count, extra=FILE_ONLY)
    on_gpu = torch.device(cfg.MODEL.DEVICE).type == "cuda" and torch.cuda.is_available()
    facts = provenance("cuda" if on_gpu else "cpu", count)
    logger.info("On %s; commit %s", facts["hardware"], facts["commit"], extra=FILE_ONLY)
    logger.info("Environment:\n%s", collect_env_info(), extra=FILE_ONLY)
    logger.info("Command line arguments: %s", args, extra=FILE_ONLY)
    written = folder / "config.yaml"
    logger.info("Configuration, also in '%s':\n%s", written, cfg.dump(), extra=FILE_ONLY)
