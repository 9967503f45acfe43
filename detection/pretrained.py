"""Published weights by name: ``MODEL.WEIGHTS timm://spnasnet_100``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from iopath.common.file_io import PathHandler, get_cache_dir

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.factory import list_models, load_architecture, pretrained_state
from backbones.weights import save_checkpoint

PREFIX = "timm://"


class TimmWeightsHandler(PathHandler):
    """Turns ``timm://NAME`` into a local checkpoint, downloaded and converted at first use.

    The file is kept in iopath's cache folder (``$FVCORE_CACHE``).
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        name = path.removeprefix(PREFIX)
        target = Path(get_cache_dir(None)) / "timm" / f"{name}.pth"
        if force or not target.is_file():
            state = pretrained_state(architecture_of(name))
            save_checkpoint(target, {"model": state, "matching_heuristics": True})
        return str(target)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return path.removeprefix(PREFIX) in timm_names()

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._exists(path)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        return open(self._get_local_path(path), mode, buffering=buffering)


def timm_names() -> dict[str, Architecture]:
    """The networks of the zoo that timm has weights for, by timm's name."""
    zoo = [load_architecture(name) for name in list_models()]
    return {
        architecture.provenance["timm"]: architecture
        for architecture in zoo
        if isinstance(architecture.provenance.get("timm"), str)
    }


def architecture_of(name: str | os.PathLike[str]) -> Architecture:
    """The architecture that timm's network ``name`` has.

    Raises:
        UserError: if no network of the zoo has weights of that name.
    """
    known = timm_names()
    text = os.fspath(name)
    if text not in known:
        raise UserError(
            f"MODEL.WEIGHTS is '{PREFIX}{text}', which no network of the zoo corresponds to; "
            f"expected {', '.join(PREFIX + key for key in sorted(known))}, or a file"
        )
    return known[text]
