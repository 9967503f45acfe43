"""Where a figure comes from: the command, the code, the machine and the versions behind it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import torch

from backbones.inference.hardware import device_name

_ROOT = Path(__file__).resolve().parents[2]


def provenance(
    device: str = "cpu", workers: int = 1, threads: int | None = None
) -> dict[str, str | None]:
    """What every file below ``docs/results`` says of itself, for the command that is running.

    Args:
        device: ``cpu`` or ``cuda``.
        workers: processes that share the work.
        threads: of each of them; None takes those that PyTorch uses in this process.

    Returns:
        ``command`` as it is typed, ``commit`` of the checkout (None outside of one), ``hardware``
        with processes and threads, and PyTorch's version.
    """
    return {
        "command": shlex.join([*program(sys.argv[0]), *sys.argv[1:]]),
        "commit": commit(),
        "hardware": _hardware(device, workers, threads or torch.get_num_threads()),
        "torch": torch.__version__,
    }


def _hardware(device: str, workers: int, threads: int) -> str:
    processes = f"{workers} processes of " if workers > 1 else ""
    return f"{device_name(device)}, {processes}{threads} thread{'s' * (threads > 1)}"


def program(name: str) -> list[str]:
    """The words that start a tool, at the top of the checkout or as a command of ``spnas``.

    Args:
        name: the first of ``sys.argv``; ``spnas COMMAND`` in what ``spnas`` has started.
    """
    if name.startswith("spnas "):
        return name.split()
    path = Path(name).resolve()
    return ["python", str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else name]


def commit(folder: Path | None = None) -> str | None:
    """The commit that a folder's checkout is at, with ``+`` if tracked files differ from it.

    Args:
        folder: None is the one that this module lies in.

    Returns:
        Twelve hexadecimal digits; None without git or outside of a checkout.
    """
    place = folder or Path(__file__).parent

    def git(*arguments: str) -> str:
        call = ["git", "-C", str(place), *arguments]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
