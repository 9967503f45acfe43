"""Published weights by name: ``MODEL.WEIGHTS timm://spnasnet_100``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iopath.common.file_io import PathHandler, get_cache_dir

from backbones.errors import UserError
from backbones.published import SCHEMES, download, find_published
from backbones.weights import save_checkpoint


class PublishedWeightsHandler(PathHandler):
    """Turns ``timm://NAME`` or ``torchvision://NAME`` into a local checkpoint.

    It is downloaded and converted at first use, and kept in iopath's cache folder
    (``$FVCORE_CACHE``).
    """

    def _get_supported_prefixes(self) -> list[str]:
        return list(SCHEMES)

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        weights = find_published(path)
        name = f"{weights.name}.{weights.tag}" if weights.tag else weights.name
        target = Path(get_cache_dir(None)) / weights.library / f"{name}.pth"
        if force or not target.is_file():
            save_checkpoint(target, {"model": download(weights), "matching_heuristics": True})
        return str(target)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        try:
            find_published(path)
        except UserError:
            return False
        return True

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._exists(path)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        return open(self._get_local_path(path), mode, buffering=buffering)
