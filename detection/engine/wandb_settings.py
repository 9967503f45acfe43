"""What the user decides about Weights & Biases."""

from __future__ import annotations

import contextlib
import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlparse

from detectron2.config import CfgNode

from backbones.errors import UserError

Mode = Literal["auto", "online", "offline", "disabled"]

_VARIABLES = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
    "tags": "WANDB_TAGS",
    "notes": "WANDB_NOTES",
    "job_type": "WANDB_JOB_TYPE",
}
"""W&B's environment variables, by the setting whose default they replace."""

_OF_ONE_RUN = ("WANDB_RUN_ID", "WANDB_NAME", "WANDB_RESUME", "WANDB_SERVICE")
_FORMER_MODES = {"dryrun": "offline", "run": "online"}
_TRUE = ("1", "true", "yes", "on", "y", "t")


@dataclass(frozen=True)
class WandbSettings:
    """Whether and how to log to W&B.

    Attributes:
        enabled: False is no W&B at all.
        mode: ``auto`` follows the environment variables ``WANDB_DISABLED`` and ``WANDB_MODE``;
            without them, it is ``online`` if there is an API key and else ``offline``, to be
            uploaded later with ``wandb sync``.
        project: of the runs.
        entity: user or team that the runs belong to; empty is the account's default.
        name: of this run; empty is the name of the run folder.
        group: of related runs, e.g. all seeds of one experiment; empty is that of the run which the
            network or its weights come from, else a new one.
        tags: of this run.
        notes: on this run.
        job_type: of this run, e.g. ``train``.
        artifacts: whether files that runs hand on are artifacts.
        artifact_mb: the largest that is uploaded, in MB.

    Raises:
        UserError: for another mode, or a negative size.
    """

    enabled: bool = True
    mode: Mode = "auto"
    project: str = "spnas"
    entity: str = ""
    name: str = ""
    group: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    job_type: str = ""
    artifacts: bool = True
    artifact_mb: float = 500.0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UserError(
                f"WANDB.MODE is '{self.mode}'; expected one of {', '.join(get_args(Mode))}"
            )
        if not self.artifact_mb >= 0:
            raise UserError(
                f"WANDB.ARTIFACT_MB is {self.artifact_mb:g}; expected a size in MB, or 0 to upload "
                "no files"
            )

    @classmethod
    def from_cfg(cls, node: CfgNode) -> WandbSettings:
        """Reads ``cfg.WANDB``."""
        return cls(
            enabled=node.ENABLED,
            mode=node.MODE,
            project=node.PROJECT,
            entity=node.ENTITY,
            name=node.NAME,
            group=node.GROUP,
            tags=tuple(str(tag) for tag in node.TAGS),
            notes=node.NOTES,
            job_type=node.JOB_TYPE,
            artifacts=node.ARTIFACTS,
            artifact_mb=node.ARTIFACT_MB,
        )

    def with_environment(self, environ: Mapping[str, str] = os.environ) -> WandbSettings:
        """The settings with W&B's environment variables in place of defaults.

        What differs from its default was set by the user, and stays.

        Args:
            environ: of the process.
        """
        found: dict[str, Any] = {}
        for field in fields(self):
            value = environ.get(_VARIABLES.get(field.name, ""), "").strip()
            if value and getattr(self, field.name) == field.default:
                found[field.name] = _tags(value) if field.name == "tags" else value
        if self.mode == "auto" and environ.get("WANDB_DISABLED", "").lower() in _TRUE:
            found["mode"] = "disabled"
        if self.mode == "auto" and environ.get("WANDB_MODE", "").lower() == "disabled":
            found["mode"] = "disabled"
        return replace(self, **found)

    @property
    def active(self) -> bool:
        """Whether anything is to be logged."""
        return self.enabled and self.mode != "disabled"


def environment_of_run(
    environ: Mapping[str, str], folder: Path, study: Path | None
) -> dict[str, str]:
    """The environment of a run that another tool starts, one among several.

    ``WANDB_RUN_ID``, ``WANDB_NAME`` and ``WANDB_RESUME`` are of one run, and ``WANDB_SERVICE`` of
    one process, so that none gets those of the tool. The tool's runs are one group:
    ``WANDB_RUN_GROUP``, else what the tool's ``WANDB_NAME`` says, else the folder of the study.

    Args:
        environ: of the tool.
        folder: of the run.
        study: the folder that has those of all its runs; None where there is no such folder.
    """
    own = {name: value for name, value in environ.items() if name not in _OF_ONE_RUN}
    group = environ.get("WANDB_RUN_GROUP") or environ.get("WANDB_NAME")
    if study is not None:
        group = group or study.resolve().name
        own["WANDB_NAME"] = folder.resolve().relative_to(study.resolve()).as_posix()
    if group:
        own["WANDB_RUN_GROUP"] = group
    return own


def _tags(text: str) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in text.split(",") if tag.strip())


def resolve_mode(mode: Mode, wandb: Any) -> str:
    """What ``auto`` stands for here; every other mode as it is.

    Args:
        mode: of the settings.
        wandb: the imported module.
    """
    if mode != "auto":
        return mode
    if chosen := os.environ.get("WANDB_MODE", "").lower():
        return _FORMER_MODES.get(chosen, chosen)
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
