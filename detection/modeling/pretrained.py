"""Published weights by name: ``MODEL.WEIGHTS timm://spnasnet_100``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iopath.common.file_io import PathHandler, get_cache_dir

from backbones.errors import UserError
from backbones.hub import HUB_SCHEMES, find_on_hub, is_hub_name
from backbones.published import SCHEMES, download, find_published, hub_weights
from backbones.weights import save_checkpoint
from backbones.zoo import PublishedWeights


def kept_file(weights: PublishedWeights) -> Path:
    """Where published weights are kept, by our names, once they were used."""
    name = f"{weights.name}.{weights.tag}" if weights.tag else weights.name
    return Path(get_cache_dir(None)) / weights.library / f"{name}.pth"


class PublishedWeightsHandler(PathHandler):
    """Turns ``timm://NAME`` or ``torchvision://NAME`` into a local checkpoint.

    It is downloaded and converted at first use, and kept in iopath's cache folder
    (``$FVCORE_CACHE``). ``hf-hub:ORG/NAME`` and ``local-dir:FOLDER`` lead to the file there, which
    is kept by Hugging Face's library.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [*SCHEMES, *HUB_SCHEMES]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        if is_hub_name(path):
            return hub_weights(path)
        weights = find_published(path)
        target = kept_file(weights)
        if force or not target.is_file():
            save_checkpoint(target, {"model": download(weights), "matching_heuristics": True})
        return str(target)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        try:
            find_on_hub(path) if is_hub_name(path) else find_published(path)
        except UserError:
            return False
        return True

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._exists(path)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        return open(self._get_local_path(path), mode, buffering=buffering)
