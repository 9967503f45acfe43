"""``data.json``: what the data are, what is odd in them, and what is proposed for them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backbones.files import write_json
from backbones.schema import load_versioned, to_versioned
from detection.data.annotations.overview import facts, objects_by_class
from detection.data.inspection import Inspection

DATA_FILE = "data.json"
"""In the folder of the whole."""
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class DataSetFacts:
    """One data set.

    Attributes:
        name: of the data set.
        facts: what is counted in it, in words.
        classes: objects by class: small, medium and large ones, with COCO's borders.
        findings: what is odd in it, each in a sentence.
    """

    name: str
    facts: Mapping[str, str] = field(hash=False)
    classes: Mapping[str, tuple[int, ...]] = field(hash=False)
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proposal:
    """A key of the configuration, its value as it is typed, and why, in half a line."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class DataFacts:
    """The data sets of a run, training sets first, and what is proposed for them."""

    sets: tuple[DataSetFacts, ...]
    proposals: tuple[Proposal, ...] = ()

    @property
    def class_names(self) -> list[str]:
        """Of all data sets."""
        return list(dict.fromkeys(name for item in self.sets for name in item.classes))

    @classmethod
    def of(cls, found: Inspection, proposals: Sequence[Proposal] = ()) -> DataFacts:
        """What an inspection has found."""
        return cls(
            tuple(
                DataSetFacts(
                    name,
                    facts(file),
                    {title: tuple(map(int, n)) for title, n in objects_by_class(file).items()},
                    tuple(map(str, found.findings[name])),
                )
                for name, file in found.files.items()
            ),
            tuple(proposals),
        )

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes :data:`DATA_FILE` into a folder, whole or not at all."""
        path = Path(folder) / DATA_FILE
        write_json(path, to_versioned(self, SCHEMA_VERSION))
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> DataFacts:
        """Reads a folder's :data:`DATA_FILE`.

        Raises:
            UserError: if it is missing or damaged.
        """
        path = str(Path(folder) / DATA_FILE)
        found: DataFacts = load_versioned(cls, path, "data", SCHEMA_VERSION)
        return found
