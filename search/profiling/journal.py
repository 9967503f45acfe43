"""Appends every measurement to a file as it is made, so that a profile can be resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.files import read_json, safe_name, write_json
from backbones.inference.board.turns import append_line, read_visits


@dataclass(frozen=True)
class Visit:
    """One short timing session of an item.

    Attributes:
        key: of the item.
        round: in which it was made.
        runtime: in ms.
        share: part of a core that the process had meanwhile; 1 where it is not known.
    """

    key: str
    round: int
    runtime: float
    share: float = 1.0


class Journal:
    """Visits and converted models of a profile that is under way.

    Args:
        folder: where it is kept; made if missing.
        setting: what the figures depend on.

    Raises:
        UserError: if the folder has a profile with another setting.
    """

    def __init__(self, folder: Path, setting: Mapping[str, Any]) -> None:
        self.folder = folder
        known = folder / "setting.json"
        wanted = json.loads(json.dumps(setting))
        if self._file.exists() or any(folder.glob("*.model")):
            found = read_json(known, "profile")
            if found != wanted:
                changed = [key for key in wanted if found.get(key) != wanted[key]]
                raise UserError(
                    f"'{folder}' has an unfinished profile with another {', '.join(changed)} "
                    f"({found.get(changed[0])!r}); finish it as it was begun, delete the folder, "
                    "or choose another --output or --prepare"
                )
        else:
            write_json(known, wanted)
        _, visits = read_visits(self._file)
        self.visits = [Visit(*visit) for visit in visits]

    @property
    def _file(self) -> Path:
        return self.folder / "visits.jsonl"

    def model_path(self, key: str) -> Path:
        """Where an item's converted model is kept."""
        return self.folder / f"{safe_name(key, 'what is measured')}.model"

    def add(self, visit: Visit) -> None:
        """Writes one visit down."""
        self.visits.append(visit)
        append_line(self._file, astuple(visit))

    def remove_models(self) -> None:
        """Deletes the converted models, once all is measured; visits are kept."""
        for path in self.folder.glob("*.model"):
            path.unlink()

    def remove(self) -> None:
        """Deletes the folder, once what it was kept for is written; what it is about goes last."""
        self._file.unlink(missing_ok=True)
        self.remove_models()
        shutil.rmtree(self.folder)
