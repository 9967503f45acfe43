"""Run folders and studies, read for a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE
from backbones.files import read_json
from backbones.zoo import load_architecture
from detection.engine.metrics import METRICS_FILE, read_metrics
from detection.engine.results import RESULTS_FILE
from detection.engine.reuse import read_config
from search.command_line.registry import TOOLS, tool_command
from search.report.log_file import LogFacts, read_log
from search.runs.layers_file import LAYERS_FILE

PARTS = {"search": "search", "classification": "classifier", "detection": "detector"}
"""Parts of ``results.json``, in the order in which they are made, and what their run is called."""

_TOOLS = {
    **{"search_net.py": "search", "spnas search": "search"},
    **{"train_classifier.py": "classification", "spnas train-classifier": "classification"},
    **{"train_net.py": "detection", "spnas train": "detection"},
}
_SIGNS = {
    "detection": ("loss_box_reg", "bbox/AP", "loss_rpn_cls"),
    "search": ("search/runtime", "found/runtime"),
    "classification": ("train/top1",),
}
"""Metrics that only one kind of run has; in doubt the first one counts."""


@dataclass(frozen=True)
class Run:
    """One run of search, classifier or detector, finished or not.

    Attributes:
        folder: of the run.
        config: by dotted keys.
        results: of ``results.json``; empty before the end of the run.
        metrics: rows of ``metrics.json``.
        log: what the log says.
        layers: of ``layers.json``, which searches leave.
    """

    folder: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    log: LogFacts
    layers: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's name, and its parent's where that tells more: ``demo/search``."""
        place = self.folder.resolve()
        return f"{place.parent.name}/{place.name}"

    @cached_property
    def kind(self) -> str:
        """The part of the results that the run makes; empty where nothing tells."""
        for command in self.log.commands[-1:]:
            words = command.split()
            tool = " ".join(words[: 1 if words[0].endswith(".py") else 2])
            if tool in _TOOLS:
                return _TOOLS[tool]
        for part in PARTS:
            if part in self.results:
                return part
        keys = {key for row in self.metrics for key in row}
        return next((kind for kind, signs in _SIGNS.items() if keys.intersection(signs)), "")

    @property
    def title(self) -> str:
        """What the run is called: search, classifier or detector."""
        if self.kind == "search" and (
            "detection" in self.results or self.config.get("DATASETS.TEST")
        ):
            return "search on a detector"
        return PARTS.get(self.kind, "run")

    @property
    def commands(self) -> list[str]:
        """The commands of the run as they are typed."""
        return [_as_typed(command) for command in self.log.commands]

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.kind in self.results

    def part(self, name: str) -> dict[str, Any]:
        """A part of the results; empty where the run has none."""
        found = self.results.get(name)
        return found if isinstance(found, dict) else {}

    def series(self, key: str) -> list[tuple[int, float]]:
        """Iterations and values of a metric, in order; of rows that stand twice the later one."""
        found = {
            row["iteration"]: row[key]
            for row in self.metrics
            if isinstance(row.get("iteration"), int) and isinstance(row.get(key), int | float)
        }
        return sorted(found.items())

    @cached_property
    def architecture(self) -> Architecture | None:
        """The network that the run found or trained; None where its file has gone."""
        own = self.folder / ARCHITECTURE_FILE
        if own.exists():
            return Architecture.load(own)
        named = str(self.config.get("MODEL.SPNAS.ARCH") or "")
        if self.kind == "search" or not named:
            return None
        if self.kind == "detection" and "spnas" not in str(self.config.get("MODEL.BACKBONE.NAME")):
            return None
        try:
            network = load_architecture(_beside(self.folder, named))
            return network.scaled(float(self.config.get("MODEL.SPNAS.WIDTH_MULT") or 1))
        except UserError:  # a path of another machine or folder
            return None


def _beside(folder: Path, named: str) -> str:
    """The file of a network, also where a run was moved together with the run that left it.

    Args:
        folder: of the run.
        named: by its configuration: a name of the zoo, or a path.
    """
    parts = Path(named).parts
    if Path(named).is_file():
        return named
    moved = (folder.resolve().parent.joinpath(*parts[n:]) for n in range(1, len(parts) - 1))
    return str(next((file for file in moved if file.is_file()), named))


def _as_typed(logged: str) -> str:
    """A command of a log, in which a script of ours has no folder."""
    script, space, rest = logged.partition(" ")
    if script not in (tool.script for tool in TOOLS.values()):
        return logged
    return f"{tool_command(script)}{space}{rest}"


@dataclass(frozen=True)
class Study:
    """Results of many runs: of ``tools/compare_backbones.py`` or ``tools/compare_search.py``.

    Attributes:
        file: its JSON.
        content: of the file.
    """

    file: Path
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the file, or of the folder that a comparison is in."""
        return self.file.stem if self.file.stem != "comparison" else self.file.parent.name


def read_all(paths: Sequence[Path]) -> tuple[list[Run], list[Study]]:
    """Reads run folders, folders of run folders, and studies.

    Args:
        paths: a run folder; a folder whose subfolders are runs, such as the demo's; the JSON of a
            study, or the folder of a comparison.

    Raises:
        UserError: if one is none of these, or a file in it is damaged.
    """
    runs: dict[Path, Run] = {}
    studies: list[Study] = []
    for path in paths:
        study = path if path.is_file() else path / "comparison.json"
        if study.is_file() and not (path / "config.yaml").exists():
            studies.append(_read_study(study))
            continue
        for folder in _run_folders(path):
            runs.setdefault(folder.resolve(), read_run(folder))
    return list(runs.values()), studies


def read_run(folder: Path) -> Run:
    """Reads a run folder.

    Raises:
        UserError: if it is none, or a file in it is damaged.
    """
    config = read_config(folder)
    return Run(
        folder=folder,
        config=config,
        results=_mapping(folder / RESULTS_FILE, "results"),
        metrics=read_metrics(folder),
        log=read_log(folder),
        layers=_mapping(folder / LAYERS_FILE, "layers"),
    )


def _mapping(file: Path, what: str) -> dict[str, Any]:
    """A JSON object; empty where the file is missing."""
    if not file.exists():
        return {}
    content = read_json(file, what)
    if not isinstance(content, dict):
        raise UserError(
            f"the {what} file '{file}' holds a {type(content).__name__}, not a JSON object; repeat "
            "the run's command with --resume, which writes it again"
        )
    return content


def _run_folders(path: Path) -> list[Path]:
    if (path / "config.yaml").is_file():
        return [path]
    inside = sorted(file.parent for file in path.glob("*/config.yaml"))
    if inside:
        order = list(PARTS)
        kinds = {folder: read_run(folder).kind for folder in inside}
        return sorted(inside, key=lambda f: order.index(kinds[f]) if kinds[f] else len(order))
    if path.is_dir() and (path / METRICS_FILE).exists():
        raise UserError(f"'{path}' has no config.yaml: repeat its run's command with --resume")
    raise UserError(
        f"'{path}' is no run; expected the OUTPUT_DIR of a search, a classifier or a detector, a "
        "folder of such folders, or the JSON of a study"
    )


def _read_study(file: Path) -> Study:
    content = read_json(file, "study")
    known = isinstance(content, dict) and isinstance(
        content.get("rows", content.get("trials")), list
    )
    if not known:
        raise UserError(
            f"'{file}' is no study that a report shows; expected the JSON of "
            f"{tool_command('compare_backbones.py')} or {tool_command('compare_search.py')}"
        )
    return Study(file, content)
