"""Images that cannot be read: left out of a run, counted and listed, up to a limit."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine.train_loop import HookBase

from backbones.errors import UserError, first_of

UNREADABLE_FILE = "unreadable_images.jsonl"
"""In the run folder: an image and what is wrong with it in every line."""

KEY = "DATALOADER.MAX_UNREADABLE_IMAGES"

_log = logging.getLogger(__name__)


class UnreadableImageError(UserError):
    """An image that is missing, broken, or of values that nobody can scale.

    Args:
        message: as of any user's mistake.
        image: its file.
    """

    def __init__(self, message: str, image: str = "") -> None:
        super().__init__(message)
        self.image = image


class UnreadableImages:
    """The images that a run leaves out.

    All its processes and their loaders add to one file, and look at it when they meet such an
    image, which is rare: nothing is counted otherwise. A resumed run goes on with the file.

    Args:
        limit: different images that may be left out; with 0 the first one ends the run.
        folder: the run folder.
    """

    def __init__(self, limit: int = 0, folder: str | os.PathLike[str] = "") -> None:
        self.limit = limit
        self.file = Path(folder) / UNREADABLE_FILE

    @classmethod
    def of(cls, cfg: CfgNode) -> UnreadableImages:
        """As a configuration says.

        Raises:
            UserError: if its limit is below 0.
        """
        limit = cfg.DATALOADER.MAX_UNREADABLE_IMAGES
        if limit < 0:
            raise UserError(f"{KEY} is {limit}; expected a number of images, or 0 for none")
        return cls(limit, cfg.OUTPUT_DIR)

    def leave_out(self, error: UnreadableImageError) -> None:
        """Lists an image.

        Raises:
            UserError: if it is one too many.
        """
        if not self.limit:
            raise error
        if error.image in self.listed():
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"image": error.image, "error": str(error)}) + "\n"
        # one system call at the end of the file: lines of several processes do not mix
        with open(self.file, "ab", buffering=0) as file:
            file.write(line.encode())
        found = self.listed()
        if len(found) > self.limit:
            raise UserError(
                f"{len(found)} images cannot be read, such as {first_of(list(found))}; {KEY} is "
                f"{self.limit}: mend or remove those listed in '{self.file}' and delete it, "
                "or set the key higher, and continue with --resume"
            )

    def listed(self) -> dict[str, str]:
        """The images so far, and what is wrong with each."""
        try:
            lines = self.file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        rows = [json.loads(line) for line in lines]
        return {row["image"]: row["error"] for row in rows}


class UnreadableHook(HookBase):
    """Says what the loaders of all processes have left out.

    They have no log of their own where they are not forked. A resumed run says all again.

    Args:
        folder: the run folder.
        period: iterations between two looks.
    """

    def __init__(self, folder: str | os.PathLike[str], period: int) -> None:
        self._images = UnreadableImages(folder=folder)
        self._period = period
        self._said = 0

    def after_step(self) -> None:
        """Looks every so many iterations."""
        if (self.trainer.iter + 1) % self._period == 0:
            self._say()

    def after_train(self) -> None:
        """Looks once more."""
        self._say()

    def _say(self) -> None:
        found = list(self._images.listed().values())
        for count, error in enumerate(found[self._said :], start=self._said + 1):
            _log.warning("left out, as number %d of %s: %s", count, KEY, error)
        self._said = len(found)
