"""A network with its weights, by one name: published, or left by a run."""

from __future__ import annotations

import os
from pathlib import Path

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE, BACKBONE_FILE, SHARED_FILE
from backbones.published import SCHEMES, find_published, published_for
from backbones.zoo import load_architecture


def named_architecture(name: str) -> Architecture:
    """The architecture that a name stands for.

    Args:
        name: of the zoo; an address of published weights; an architecture file; or the folder of a
            run that left one.

    Raises:
        UserError: if there is none.
    """
    if name.startswith(SCHEMES):
        return find_published(name).architecture
    return load_architecture(_file(name) if _is_path(name) else name)


def named_weights(name: str, key: str) -> str:
    """Address or file of the weights that belong to a name of :func:`named_architecture`.

    Args:
        name: of the network.
        key: that has the name, for messages.

    Raises:
        UserError: if there are no such weights.
    """
    if name.startswith(SCHEMES):
        return name
    if not _is_path(name):
        return published_for(load_architecture(name)).address
    folder = _file(name).parent
    for file in (BACKBONE_FILE, SHARED_FILE):
        if (folder / file).is_file():
            return str(folder / file)
    raise UserError(
        f"{key} is '{name}', and there is no {BACKBONE_FILE} beside its architecture; train it "
        "first, or name another network"
    )


def _is_path(name: str) -> bool:
    return name.endswith(".json") or os.sep in name or Path(name).is_dir()


def _file(name: str) -> Path:
    """An architecture file, or the one in a run's folder."""
    path = Path(name).expanduser()
    return path / ARCHITECTURE_FILE if path.is_dir() else path
