"""What a run folder remembers of its W&B run, so that a resumed run continues it."""

from __future__ import annotations

import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any

from backbones.files import write_atomic

ID_FILE = "wandb_run_id"
STEP_FILE = "wandb_last_step"
FOLDER_FILE = "wandb_folder.json"

logger = logging.getLogger(__name__)


class WandbMemory:
    """The W&B run of a run folder.

    A folder that was moved is the same run; one that was copied is another, or two folders would
    write into one run. Moving keeps the folder's device and inode, or, between file systems,
    leaves nothing behind: it is a copy where neither these nor the path are those remembered,
    and the folder at that path still has the id.

    Attributes:
        run_id: W&B's identifier of the run.
        last_step: the last one sent; -1 is none.
        closed: whether the process that sent it came to its end.
        group: of the run; empty is none yet.
    """

    def __init__(self, folder: Path) -> None:
        """Reads what there is, and makes a new id where there is none."""
        self._folder = folder
        self.run_id = _text(folder / ID_FILE)
        step = _text(folder / STEP_FILE)
        self.last_step = int(step) if step.isdecimal() else -1
        place = _read_place(folder / FOLDER_FILE)
        self.closed = bool(place.get("closed", True))
        self.group = _group(place)
        named = os.environ.get("WANDB_RUN_ID", "").strip()
        if named:
            if self.run_id not in ("", named):
                logger.warning(
                    "WANDB_RUN_ID says '%s' and the run folder '%s' has '%s': the former is used",
                    *(named, folder, self.run_id),
                )
                self._begin(named)
            self.run_id = named
        elif self.run_id and (original := self._original(place)):
            old = self.run_id
            self._begin(secrets.token_hex(4))
            logger.info(
                "'%s' is a copy of '%s', which has the W&B run '%s': the copy goes on in a W&B "
                "run of its own, '%s'",
                *(folder, original, old, self.run_id),
            )
        elif not self.run_id:
            self.run_id = secrets.token_hex(4)

    def remember(self, step: int) -> None:
        """Keeps the last step that was sent."""
        self.last_step = step
        write_atomic(self._folder / STEP_FILE, str(step))

    def mark(self, closed: bool) -> None:
        """Keeps where the folder is, the group, and whether a process is at work on the run."""
        self.closed = closed
        write_atomic(self._folder / ID_FILE, self.run_id)
        place = {**_place(self._folder), "closed": closed, "group": self.group}
        write_atomic(self._folder / FOLDER_FILE, json.dumps(place))

    def _begin(self, run_id: str) -> None:
        self.run_id, self.last_step, self.closed = run_id, -1, True
        (self._folder / STEP_FILE).unlink(missing_ok=True)

    def _original(self, place: dict[str, Any]) -> Path | None:
        """The folder that this one was copied from; None for the run's own."""
        here, path = _place(self._folder), place.get("path")
        if not isinstance(path, str) or path == here["path"]:
            return None
        if all(place.get(key) == here[key] for key in ("device", "inode")):
            return None
        return Path(path) if _text(Path(path) / ID_FILE) == self.run_id else None


def remembered_run(folder: Path) -> tuple[str, str]:
    """Id and group of a folder's W&B run; empty where there is none."""
    return _text(folder / ID_FILE), _group(_read_place(folder / FOLDER_FILE))


def _group(place: dict[str, Any]) -> str:
    group = place.get("group")
    return group if isinstance(group, str) else ""


def _place(folder: Path) -> dict[str, Any]:
    status = folder.stat()
    return {"path": str(folder.resolve()), "device": status.st_dev, "inode": status.st_ino}


def _read_place(path: Path) -> dict[str, Any]:
    try:
        place = json.loads(_text(path) or "{}")
    except json.JSONDecodeError:
        return {}
    return place if isinstance(place, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
