"""The checkpoints in a run folder: which of them is whole, and which are removed in their time."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks

from backbones.errors import UserError
from backbones.files import safe_name
from backbones.weights import read_checkpoint

LAST = "last_checkpoint"
"""The file that names the last one."""

logger = logging.getLogger(__name__)


def last_whole(folder: Path) -> Path:
    """The checkpoint that a run goes on from: its last one, or the newest before it that is whole.

    A machine that went down, or a disk that was full, may have left one that is cut or empty.

    Args:
        folder: of a run with a file ``last_checkpoint``.

    Raises:
        UserError: if none is whole.
    """
    faults = []
    for path in _newest_first(folder):
        try:
            _check_whole(path)
        except UserError as error:
            faults.append(str(error))
            continue
        if faults:
            logger.warning("%s. The run goes on from '%s'", "; ".join(faults), path)
        return path
    raise UserError(
        f"no checkpoint of the run in '{folder}' is whole: {'; '.join(faults)}. Put a copy of one "
        f"there, or start again in another folder: OUTPUT_DIR output/other"
    )


def number_to_keep(cfg: CfgNode, usual: int | None) -> int | None:
    """How many checkpoints of a period a run keeps; None is all.

    Args:
        cfg: with ``SOLVER.MAX_TO_KEEP``.
        usual: of this kind of run, where the key is 0.

    Raises:
        UserError: if the key is negative.
    """
    number = int(cfg.SOLVER.MAX_TO_KEEP)
    if number < 0:
        raise UserError(
            f"SOLVER.MAX_TO_KEEP is {number}; expected a number of checkpoints, or 0 for the usual"
        )
    return number or usual


def last_iteration(folder: str | os.PathLike[str]) -> int | None:
    """The last finished iteration of a run, or None without a checkpoint.

    Args:
        folder: of the run.
    """
    if not Path(folder, LAST).is_file():
        return None
    content = read_checkpoint(last_whole(Path(folder)))
    return int(content["iteration"]) if "iteration" in content else None


def adopt_checkpoints(registered: Iterable[HookBase], last: str) -> None:
    """Lets a new process remove the old one's checkpoints when their time comes, or has come.

    A process that was killed may have written its last one and not removed another for it.

    Args:
        registered: the hooks of the run, of which those that save are meant.
        last: file that the run goes on from. It stays; those behind it will be written again.
    """
    for hook in registered:
        if not isinstance(hook, hooks.PeriodicCheckpointer) or not hook.max_to_keep:
            continue
        found = [str(path) for path in _periodic(Path(last).parent, hook.file_prefix)]
        if Path(last).name in {Path(path).name for path in found}:
            found = [path for path in found if Path(path).name <= Path(last).name]
        surplus = max(len(found) - hook.max_to_keep, 0)
        for path in found[:surplus]:
            os.unlink(path)
        hook.recent_checkpoints = found[surplus:]


def _newest_first(folder: Path) -> list[Path]:
    """The one that ``last_checkpoint`` names, those before it, and the final one of a training."""
    periodic = _periodic(folder, "model")[::-1]
    try:
        text = (folder / LAST).read_text(encoding="utf-8", errors="replace").strip()
        last = folder / safe_name(text, f"the checkpoint in '{folder / LAST}'")
    except UserError as error:
        logger.warning("%s", error)
    else:
        before = [path for path in periodic if path.name < last.name]
        periodic = [last, *before]
    final = folder / "model_final.pth"
    return periodic if final in periodic or not final.exists() else [*periodic, final]


def _periodic(folder: Path, prefix: str) -> list[Path]:
    """Those of a period, from old to new. Other weights in the folder are results."""
    name = re.compile(rf"{re.escape(prefix)}_\d+\.pth")
    return sorted(path for path in folder.glob("*.pth") if name.fullmatch(path.name))


def _check_whole(path: Path) -> None:
    """Insists on a checkpoint that can be read to its end.

    Raises:
        UserError: if it is missing, cut, empty, or no checkpoint.
    """
    content = read_checkpoint(path)
    del content
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # PyTorch does not compare the checksums that it writes
        if damaged:
            raise UserError(f"the checkpoint '{path}' is damaged: '{damaged}' has another checksum")
