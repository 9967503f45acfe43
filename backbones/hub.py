"""Weights by timm's names: ``hf-hub:org/name`` (Hugging Face's hub) and ``local-dir:/folder``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.extras import require
from backbones.files import read_json
from backbones.specs import PerChannel

HUB_SCHEMES = ("hf-hub:", "hf_hub:", "local-dir:")
"""What names of the hub, or of a folder in its form, begin with."""

CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class HubModel:
    """What a folder of timm's ``save_for_hf``, here or on the hub, holds.

    Attributes:
        source: as the user named it.
        config: its ``config.json``; empty if a folder has none.
        weights: the file with the weights, on this machine.
    """

    source: str
    config: Mapping[str, Any]
    weights: Path

    @property
    def architecture(self) -> str:
        """The network's name in timm, without a tag; empty if the configuration has none."""
        return str(self.config.get("architecture", "")).partition(".")[0]

    @property
    def architecture_data(self) -> Mapping[str, Any] | None:
        """The architecture itself, where the configuration of a shared model has it."""
        found = self._model_args.get("architecture")
        return found if isinstance(found, dict) else None

    @property
    def is_trunk(self) -> bool:
        """Whether there are feature maps alone, without head and classifier."""
        return self._model_args.get("num_features") == 0

    @property
    def num_classes(self) -> int | None:
        """Of the classifier; None if the configuration does not tell."""
        count = self.config.get("num_classes", self._pretrained.get("num_classes"))
        return count if isinstance(count, int) else None

    @property
    def normalisation(self) -> tuple[PerChannel, PerChannel] | None:
        """Mean and deviation of the images it was trained on; None if unknown."""
        mean, std = (_per_channel(self._pretrained.get(key)) for key in ("mean", "std"))
        return (mean, std) if mean and std else None

    @property
    def _model_args(self) -> Mapping[str, Any]:
        found = self.config.get("model_args")
        return found if isinstance(found, dict) else {}

    @property
    def _pretrained(self) -> Mapping[str, Any]:
        found = self.config.get("pretrained_cfg", self.config)
        return found if isinstance(found, dict) else {}


def _per_channel(values: Any) -> PerChannel | None:
    match values:
        case [int() | float() as red, int() | float() as green, int() | float() as blue]:
            return red, green, blue
    return None


def is_hub_name(name: str | os.PathLike[str]) -> bool:
    """Whether a name has one of :data:`HUB_SCHEMES`."""
    return os.fspath(name).startswith(HUB_SCHEMES)


def hub_name(name: str | os.PathLike[str]) -> str:
    """A folder or a repository by the name that timm's loaders know it by.

    Raises:
        UserError: if it is neither a folder nor of the form USER/NAME.
    """
    text = os.fspath(name)
    if is_hub_name(text):
        return text
    if Path(text).expanduser().is_dir():
        return f"local-dir:{Path(text).expanduser()}"
    if is_repository(text.partition("@")[0]):
        return f"hf-hub:{text}"
    raise UserError(
        f"'{text}' is no folder, and does not have the form USER/NAME of a repository of Hugging "
        "Face's hub; check the path"
    )


def is_repository(name: str) -> bool:
    """Whether a name has the form USER/NAME that the hub demands."""
    parts = name.split("/")
    return (
        len(parts) == 2
        and all(re.fullmatch(r"\w(?:[\w.-]{0,94}\w)?", part, re.ASCII) for part in parts)
        and not re.search(r"--|\.\.|\.git$", name)
    )


def find_on_hub(source: str) -> HubModel:
    """The files at such a name; those of the hub are downloaded, and kept by its library.

    Raises:
        UserError: if the folder or the repository has no weights, or there is no network.
    """
    scheme, _, name = source.partition(":")
    if not name:
        raise UserError(f"'{source}' names nothing; expected {scheme}:{_form(scheme)}")
    return _in_folder(source, Path(name)) if scheme == "local-dir" else _on_hub(source, name)


def _form(scheme: str) -> str:
    return "/path/to/folder" if scheme == "local-dir" else "organisation/name"


def _in_folder(source: str, folder: Path) -> HubModel:
    if not folder.is_dir():
        raise UserError(f"'{source}': no folder at '{folder}'; check the path")
    names = [name for name in WEIGHTS_FILES if (folder / name).is_file()]
    if not names:
        others = [p.name for s in (".safetensors", ".bin", ".pth") for p in folder.glob(f"*{s}")]
        if len(others) != 1:
            found = f"{len(others)} other files of weights; name one of them instead"
            raise UserError(
                f"'{source}': the folder has none of {', '.join(WEIGHTS_FILES)}, and "
                f"{found if others else 'no other file of weights; check the path'}"
            )
        names = others
    config = folder / CONFIG_FILE
    return HubModel(source, _config(config) if config.is_file() else {}, folder / names[0])


def _on_hub(source: str, name: str) -> HubModel:
    require("huggingface_hub")
    hub = import_module("huggingface_hub")
    errors = import_module("huggingface_hub.errors")
    repository, _, revision = name.partition("@")

    def fetch(file: str) -> Path:
        return Path(hub.hf_hub_download(repository, file, revision=revision or None))

    try:
        config = _config(fetch(CONFIG_FILE))
        for file in WEIGHTS_FILES[:-1]:
            try:
                return HubModel(source, config, fetch(file))
            except errors.LocalEntryNotFoundError:
                raise
            except errors.EntryNotFoundError:
                continue
        return HubModel(source, config, fetch(WEIGHTS_FILES[-1]))
    except UserError:
        raise
    except Exception as error:  # its HTTP library raises types of its own
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"cannot fetch '{source}' from Hugging Face's hub ({type(error).__name__}: {reason}); "
            "check the name and the network, or download its folder elsewhere and name it: "
            "local-dir:/path/to/folder"
        ) from None


def _config(path: Path) -> dict[str, Any]:
    config = read_json(path, "model configuration")
    if not isinstance(config, dict):
        raise UserError(f"'{path}' holds a {type(config).__name__}; expected timm's config.json")
    return config
