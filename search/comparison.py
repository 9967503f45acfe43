"""Runs for a comparison of backbones: every network and seed through the same stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from backbones.errors import UserError
from detection.comparison import DetectorRun, load_run
from search.config import load_search_config
from search.stages import Stage, backbone_options


@dataclass(frozen=True)
class Entry:
    """A row to be: a detector with one network as its backbone.

    Attributes:
        name: of the row.
        config_file: of the detector.
        architecture: name or path of the network; None keeps the one in the file.
    """

    name: str
    config_file: str
    architecture: str | None = None


def entries(config_files: Sequence[str], architectures: Sequence[str]) -> list[Entry]:
    """The rows that a command line asks for.

    Args:
        config_files: detectors; without ``architectures``, each with the network that it names.
        architectures: names or paths of networks for every detector; ``NAME=PATH`` names the row.

    Raises:
        UserError: if two rows have one name.
    """
    found = []
    for file in config_files:
        if not architectures:
            found.append(Entry(network_name(load_search_config(file)), file))
        for item in architectures:
            name, _, path = item.rpartition("=")
            found.append(Entry(name or Path(path).stem, file, path))
    names = [entry.name for entry in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"two rows are called '{twice[0]}'; name them apart: --architectures NAME=PATH, or "
            "compare one detector at a time"
        )
    return found


def network_name(cfg: CfgNode) -> str:
    """The network that a detector's configuration names."""
    if "timm" in cfg.MODEL.BACKBONE.NAME:
        return str(cfg.MODEL.TIMM.NAME)
    return Path(cfg.MODEL.SPNAS.ARCH).stem


def stages_of(
    entry: Entry,
    seed: int,
    output: Path,
    classifier_config: str | None,
    arguments: Sequence[str],
    options: Sequence[str],
) -> list[Stage]:
    """The runs of one row and seed: a classifier where asked for, then the detector on it.

    Args:
        entry: the row.
        seed: of both.
        output: folder of the comparison.
        classifier_config: trains every network first; None starts from the weights in the file.
        arguments: of every command.
        options: keys of every detector.
    """
    folder = output / entry.name / f"seed{seed}"
    seeded = ("SEED", str(seed))
    network: tuple[str, ...] = ()
    if entry.architecture:
        network = ("MODEL.SPNAS.ARCH", entry.architecture)
    stages = []
    if classifier_config:
        classifier = output / entry.name / f"classifier{seed}"
        stages = [
            Stage(
                "train_classifier.py",
                classifier_config,
                classifier,
                (*network, *seeded),
                tuple(arguments),
            )
        ]
        network = backbone_options(classifier)
    detector = (*network, *seeded, *options)
    return [*stages, Stage("train_net.py", entry.config_file, folder, detector, tuple(arguments))]


def finished_run(entry: Entry, stages: Sequence[Stage]) -> DetectorRun:
    """What the stages of a row and a seed came to."""
    *classifier, detector = stages
    return load_run(detector.folder, entry.name, classifier[0].folder if classifier else None)
