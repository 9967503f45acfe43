"""Stages of a job as the commands that a user would type, each in a process of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.errors import UserError


@dataclass(frozen=True)
class Stage:
    """One run of a tool.

    Attributes:
        script: below ``tools/``.
        config_file: of the run.
        folder: its run folder.
        options: keys to change and their values, in turns.
        arguments: further ones, such as ``--num-gpus 8``.
    """

    script: str
    config_file: str
    folder: Path
    options: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end, which its results are."""
        return (self.folder / "results.json").exists()

    def command(self) -> list[str]:
        """What follows ``python``; with ``--resume`` a second call goes on where it was."""
        return [
            f"tools/{self.script}",
            *("--config-file", self.config_file, *self.arguments, "--resume"),
            *("OUTPUT_DIR", str(self.folder), *self.options),
        ]


def backbone_options(folder: Path) -> tuple[str, ...]:
    """The keys that name the network, and its weights, which a search or a classifier left."""
    architecture, weights = folder / "architecture.json", folder / "backbone.pth"
    return ("MODEL.SPNAS.ARCH", str(architecture), "MODEL.WEIGHTS", str(weights))


def check_checkout() -> None:
    """Insists on the top of a checkout as the current folder, where ``tools/`` is.

    Raises:
        UserError: if it is another one.
    """
    if not Path("tools/train_net.py").is_file():
        raise UserError("start it at the top of the checkout, where tools/ is")


def run_stages(stages: Sequence[Stage], titles: Sequence[str]) -> None:
    """Runs the stages in order; a title stands above each of them.

    Raises:
        UserError: if one fails; those before it are kept.
    """
    for number, (stage, title) in enumerate(zip(stages, titles, strict=True), start=1):
        command = stage.command()
        print(f"\n[{number}/{len(stages)}] {title}\n$ python {shlex.join(command)}", flush=True)
        environment = {"PYTHONWARNINGS": "ignore", **os.environ}
        code = subprocess.run([sys.executable, *command], env=environment).returncode
        if code:
            raise UserError(
                f"stage {number} of {len(stages)} ended with exit code {code}, see above; the "
                "same command goes on there"
            )
