"""What the user decides about Weights & Biases."""

from __future__ import annotations

import contextlib
import netrc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlparse

from detectron2.config import CfgNode

from backbones.errors import UserError

Mode = Literal["auto", "online", "offline", "disabled"]


@dataclass(frozen=True)
class WandbSettings:
    """Whether and how to log to W&B.

    Attributes:
        enabled: False is no W&B at all.
        mode: ``auto`` follows the environment variable ``WANDB_MODE``; without it, it is
            ``online`` if there is an API key and else ``offline``, to be uploaded later with
            ``wandb sync``.
        project: of the runs.
        name: of this run; empty is the name of the run folder.
        group: of related runs, e.g. all seeds of one experiment.
        tags: of this run.

    Raises:
        UserError: for another mode.
    """

    enabled: bool = True
    mode: Mode = "auto"
    project: str = "spnas"
    name: str = ""
    group: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UserError(
                f"WANDB.MODE is '{self.mode}'; expected one of {', '.join(get_args(Mode))}"
            )

    @classmethod
    def from_cfg(cls, node: CfgNode) -> WandbSettings:
        """Reads ``cfg.WANDB``."""
        return cls(
            enabled=node.ENABLED,
            mode=node.MODE,
            project=node.PROJECT,
            name=node.NAME,
            group=node.GROUP,
            tags=tuple(str(tag) for tag in node.TAGS),
        )

    @property
    def active(self) -> bool:
        """Whether anything is to be logged."""
        return self.enabled and self.mode != "disabled"


def resolve_mode(mode: Mode, wandb: Any) -> str:
    """What ``auto`` stands for here; every other mode as it is.

    Args:
        mode: of the settings.
        wandb: the imported module.
    """
    if mode != "auto":
        return mode
    if chosen := os.environ.get("WANDB_MODE"):
        return chosen
    return "online" if has_api_key(wandb) else "offline"


def has_api_key(wandb: Any) -> bool:
    """Whether W&B finds credentials: in the environment, its settings, or the netrc file."""
    settings = wandb.setup(wandb.Settings(silent=True)).settings
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if getattr(settings, "api_key", None):
        return True
    host = urlparse(str(settings.base_url)).hostname or ""
    names = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for path in (Path(name).expanduser() for name in names):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            # A "default" entry is for every host; hence the explicit look.
            return host in netrc.netrc(str(path)).hosts
    return False
