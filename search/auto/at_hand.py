"""Which published weights can be had on this machine: kept by an earlier run, or fetched."""

from __future__ import annotations

import importlib.util
import logging
import urllib.request
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from detectron2.utils.file_io import PathManager

from backbones.errors import UserError
from backbones.hub import WEIGHTS_FILES
from backbones.zoo import PublishedWeights
from detection.modeling.pretrained import kept_file

logger = logging.getLogger(__name__)

_PATIENCE = 3
"""Seconds for the first answer of a host."""


def is_at_hand(weights: PublishedWeights) -> bool:
    """Whether weights are kept on this machine, installed as a package, or can be fetched.

    Fetching is not tried: it is enough that their host answers.
    """
    return kept_file(weights).is_file() or _PLACES[weights.library](weights)


def fetched(weights: str) -> bool:
    """Whether weights are here, once they are fetched and kept for the runs to come.

    Args:
        weights: address or file.
    """
    try:
        PathManager.get_local_path(weights)
    except UserError as error:
        logger.warning("Left out: %s", error)
        return False
    return True


def _of_package(weights: PublishedWeights) -> bool:
    # of a package without a dot, this finds the folder and imports nothing
    name = weights.package.replace("-", "_").partition(".")[0]
    return importlib.util.find_spec(name) is not None


def _of_timm(weights: PublishedWeights) -> bool:
    source: Any = import_module("timm").get_pretrained_cfg(weights.name)
    if source is None:
        return False
    if not source.hf_hub_id:
        return _of_address(source.url)
    hub = import_module("huggingface_hub")
    names = [source.hf_hub_filename] if source.hf_hub_filename else WEIGHTS_FILES
    if any(isinstance(hub.try_to_load_from_cache(source.hf_hub_id, n), str) for n in names):
        return True
    return not hub.constants.HF_HUB_OFFLINE and answers(hub.constants.ENDPOINT)


def _of_torchvision(weights: PublishedWeights) -> bool:
    options = import_module("torchvision").models.get_model_weights(weights.name)
    return _of_address(options.DEFAULT.url)


def _of_address(url: str) -> bool:
    """Whether PyTorch has kept the file of an address, or its host answers."""
    parts = urlsplit(url)
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(parts.path).name
    return kept.is_file() or answers(f"{parts.scheme}://{parts.netloc}")


@cache
def answers(host: str) -> bool:
    """Whether a host answers; asked once in a process.

    Args:
        host: with its scheme.
    """
    try:
        request = urllib.request.Request(host, method="HEAD")
        with urllib.request.urlopen(request, timeout=_PATIENCE):
            return True
    except (OSError, ValueError):  # no network, no such host, or it refuses
        return False


_PLACES: Mapping[str, Callable[[PublishedWeights], bool]] = {
    "package": _of_package,
    "timm": _of_timm,
    "torchvision": _of_torchvision,
}
"""By what an address begins with."""
