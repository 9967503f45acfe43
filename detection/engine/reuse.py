"""Whether a run folder holds the run that is asked for, before its files count as that run's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.files import differing, leaves
from detection.engine.run_folder import run_traces

FREE_KEYS = (
    *("OUTPUT_DIR", "WANDB.", "DATALOADER.NUM_WORKERS", "MODEL.DEVICE"),
    *("SOLVER.MAX_TO_KEEP", "SOLVER.MAX_NONFINITE"),
)
"""Keys, or beginnings of keys, that change where a run works and not what it comes to."""


def read_config(folder: Path) -> dict[str, Any]:
    """``config.yaml`` of a run folder by dotted keys.

    Raises:
        UserError: if there is none, or it is no YAML.
    """
    path = folder / "config.yaml"
    try:
        return leaves(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"'{path}' is not the configuration of a run: {reason}") from None


def check_same_run(folder: Path, cfg: CfgNode, way_out: str) -> None:
    """Insists that a run in ``folder``, finished or begun, is of the configuration asked for.

    A folder without results or checkpoints holds no run. Two paths of one file are the same value,
    and so are two of the same place in the run's own folder, which may have been moved.

    Args:
        folder: of the run.
        cfg: that it would run with now.
        way_out: how another folder is named, for the message.

    Raises:
        UserError: naming the keys that differ, or if the configuration cannot be read.
    """
    if not run_traces(folder):
        return
    there, asked = read_config(folder), leaves(yaml.safe_load(cfg.dump()))
    changed = [
        key
        for key in differing(there, asked)
        if not key.startswith(FREE_KEYS) and not _same_path(_place(there, key), _place(asked, key))
    ]
    if changed:
        shown = ", ".join(f"{key} is {there.get(key)}, not {asked.get(key)}" for key in changed[:3])
        more = f" and {len(changed) - 3} more keys differ" if len(changed) > 3 else ""
        raise UserError(
            f"'{folder}' holds a run of another configuration than the one asked for: {shown}"
            f"{more}; {way_out}, or delete that folder"
        )


def check_same_network(file: Path, network: Architecture, way_out: str) -> None:
    """Insists that an architecture file of an earlier run describes ``network``.

    Args:
        file: need not exist.
        network: that the run would have now.
        way_out: as for :func:`check_same_run`.

    Raises:
        UserError: if it is another network.
    """
    if not file.exists():
        return
    there = Architecture.load(file)
    if (there.stem, there.layers, there.head) != (network.stem, network.layers, network.head):
        raise UserError(
            f"'{file}' is of another run: its network is not '{network.name}', which is asked for "
            f"now; {way_out}, or delete what is there"
        )


def _place(config: Mapping[str, Any], key: str) -> Any:
    """A value; of a path in the run's own folder what follows ``OUTPUT_DIR``."""
    value, folder = config.get(key), config.get("OUTPUT_DIR")
    if isinstance(value, str) and isinstance(folder, str) and value.startswith(f"{folder}/"):
        return value.removeprefix(folder)
    return value


def _same_path(one: Any, other: Any) -> bool:
    """Whether two values are paths of one file, or lists of data sets (``NAME=FILE:FOLDER``)."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = zip(one, other, strict=True)
        return all(a == b or (":" in str(a) and _parts(a) == _parts(b)) for a, b in pairs)
    if not (isinstance(one, str) and isinstance(other, str) and one and other):
        return False
    return Path(one).resolve() == Path(other).resolve()


def _parts(value: Any) -> list[Path]:
    return [Path(part).resolve() for part in re.split("[=:]", str(value))]
