"""Files that runs hand on, as W&B's artifacts: what a run was made from, and what it has made.

An artifact is named after the file and the run that wrote it, so that whoever uses the file knows
its artifact without asking W&B, whose digest of the content does the rest: a file that is sent
twice under one name is one version.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE, BACKBONE_FILE, DETECTOR_FILE
from backbones.files import leaves, read_json
from backbones.latency import LatencyTable
from backbones.schema import named_file
from backbones.version import project_version
from detection.engine.best import BEST_MODEL
from detection.engine.results import REPORT_FILE, results_part
from detection.engine.wandb_calls import bounded, reason
from detection.engine.wandb_memory import remembered_run
from detection.scoring import METRICS

ARCHITECTURE, MODEL, TABLE, REPORT = "architecture", "model", "latency_table", "report"
"""Types of artifacts."""

_SOURCES = ("SEARCH.START", "MODEL.SPNAS.ARCH", "MODEL.WEIGHTS", "CLASSIFICATION.TEACHER")
"""Keys that can name files of an earlier run; the first that does has the group."""

_NETWORKS = ("SEARCH.START", "CLASSIFICATION.TEACHER")
"""Those that stand for an architecture with the weights beside it."""

_TABLES = ("SEARCH.LATENCY_TABLE", "MODEL.SPNAS.LATENCY_TABLE")
_WEIGHTS = (BACKBONE_FILE, DETECTOR_FILE, f"{BEST_MODEL}.pth")
_FINAL = "model_final.pth"
_DEPTH = 3  # folders between a file and its run's: family/80
_SECONDS = 60
"""That an answer of W&B's is waited for, beside the upload."""
_MB = 1_000_000
_MB_PER_SECOND = 1.0
"""Slower uploads are not waited for."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """A file as an artifact.

    Attributes:
        name: of the artifact.
        kind: its type.
        file: the only one in it.
        run: folder of the run that wrote it; None of a table.
    """

    name: str
    kind: str
    file: Path
    run: Path | None = None


def inputs(config: Mapping[str, Any], own: Path) -> list[Item]:
    """The files of earlier runs that a run's configuration names.

    Args:
        config: nested, as ``config.yaml`` has it.
        own: the folder of the run itself, whose files are none.
    """
    values = leaves(dict(config))
    found: dict[Path, Item] = {}
    for key in _SOURCES:
        for file in _files(str(values.get(key) or ""), with_weights=key in _NETWORKS):
            run = _run_of(file)
            if run is not None and run != own.resolve():
                found.setdefault(file, _item(file, run))
    return list(found.values())


def group_of(items: Sequence[Item]) -> str:
    """The group of the first run that files are from; empty where none has one."""
    groups = (remembered_run(item.run)[1] for item in items if item.run)
    return next(filter(None, groups), "")


def outputs(folder: Path) -> list[Item]:
    """What a run has left: its networks with their weights, and its report.

    The last checkpoint, with its optimizer, counts where there are no weights by themselves.
    """
    places = [folder, folder / "start", *sorted(folder.glob("family/*"))]
    files = [place / name for place in places for name in (ARCHITECTURE_FILE, *_WEIGHTS)]
    if not (folder / BACKBONE_FILE).exists():
        files.append(folder / _FINAL)
    files.append(folder / REPORT_FILE)
    return [_item(file.resolve(), folder.resolve()) for file in files if file.is_file()]


def table_of(folder: Path, config: Mapping[str, Any]) -> Item | None:
    """The latency table that the runtimes of a finished run are by; None where it is not found.

    Args:
        folder: of the run.
        config: nested, as ``config.yaml`` has it.
    """
    name = next(filter(None, (part.get("latency_table") for part in _parts(folder))), None)
    provenance = _provenance(folder).get("config", {})
    values = leaves(dict(config))
    named = [*(values.get(key) for key in _TABLES), provenance.get("LATENCY_TABLE"), name]
    for candidate in filter(None, named if name else ()):
        with contextlib.suppress(UserError):  # counts, "auto", or a path of another machine
            file = Path(named_file(str(candidate), "latency table", "latency"))
            if LatencyTable.load(file).name == name:
                return Item(_allowed(f"latency_table-{name}"), TABLE, file.resolve())
    return None


def metadata(item: Item) -> dict[str, Any]:
    """What W&B shows beside an artifact: version, run, runtime, target and scores."""
    facts: dict[str, Any] = {"spnas": project_version()}
    if item.run is None:
        return facts
    facts["run"] = remembered_run(item.run)[0]
    provenance = _provenance(item.file.parent)
    names = ("method", "dataset", "latency_table", "predicted_runtime", "unit")
    facts |= {name: provenance[name] for name in names if name in provenance}
    if target := provenance.get("config", {}).get("TARGET"):
        facts["target_runtime"] = target
    if item.file.parent == item.run:
        for part in _parts(item.run):
            facts |= _figures(part)
    return facts


@dataclass(frozen=True)
class Artifacts:
    """Sends artifacts of a W&B run; what fails is said, and nothing else happens.

    Attributes:
        wandb: the module.
        run: W&B's run.
        offline: whether the run is.
        largest: the largest file that is uploaded, in MB.
    """

    wandb: Any
    run: Any
    offline: bool
    largest: float

    def made(self, items: Sequence[Item]) -> None:
        """Makes items outputs of the run; online, waits for their upload."""
        sent = []
        for item in items:
            with _told(item, "an output"):
                sent.append((item, self.run.log_artifact(self._artifact(item))))
        if self.offline or not sent:
            return
        size = sum(map(self._upload, items))
        logger.info("Uploading %d artifacts of %.1f MB to W&B", len(sent), size)
        ends = time.monotonic() + _SECONDS + size / _MB_PER_SECOND
        for item, artifact in sent:
            with _told(item, "an output"):
                bounded(artifact.wait, max(ends - time.monotonic(), 0))

    def used(self, item: Item) -> None:
        """Makes an item an input of the run, and uploads it where W&B does not have it yet."""
        with _told(item, "an input"):
            self._use(self._artifact(item), _SECONDS + self._upload(item) / _MB_PER_SECOND)

    def _use(self, artifact: Any, seconds: float) -> None:
        if not self.offline:
            bounded(partial(self.run.use_artifact, artifact), seconds)
            return
        # use_artifact refuses to work offline, since it waits for the server. This is what it does
        # with a new artifact before it waits, and wandb sync makes it an input.
        send: Callable[..., object] = self.run._log_artifact
        send(artifact, aliases=[], is_user_created=True, use_after_commit=True)

    def _upload(self, item: Item) -> float:
        """MB of an item that are uploaded."""
        size = item.file.stat().st_size / _MB
        return size if size <= self.largest else 0.0

    def _artifact(self, item: Item) -> Any:
        artifact = self.wandb.Artifact(item.name, type=item.kind, metadata=metadata(item))
        if item.file.stat().st_size > self.largest * _MB:
            artifact.add_reference(item.file.as_uri(), name=item.file.name)
            return artifact
        file = self._kept(item) if self.offline else item.file
        artifact.add_file(str(file), name=item.file.name, skip_cache=True, policy="immutable")
        return artifact

    def _kept(self, item: Item) -> Path:
        """The file as it is now, in W&B's folder: a link, for runs replace files as a whole."""
        place = Path(self.run.dir).parent / "artifacts" / item.name / item.file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            os.link(item.file, place)
        except OSError:  # another file system
            shutil.copyfile(item.file, place)
        return place


@contextlib.contextmanager
def _told(item: Item, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of W&B's own types, which differ by version
        logger.warning(
            "W&B does not have '%s' as %s of this run (%s): the run goes on",
            *(item.file, what, reason(error)),
        )


def _files(name: str, with_weights: bool) -> list[Path]:
    path = Path(name).expanduser()
    if not name or not os.path.exists(path):
        return []
    if path.is_dir():
        path /= ARCHITECTURE_FILE
    files = [path, path.with_name(BACKBONE_FILE)] if with_weights else [path]
    return [file.resolve() for file in files if file.is_file()]


def _run_of(file: Path) -> Path | None:
    """The folder of the W&B run that wrote a file."""
    return next((folder for folder in file.parents[:_DEPTH] if remembered_run(folder)[0]), None)


def _item(file: Path, run: Path) -> Item:
    words = [*file.parent.relative_to(run).parts, file.stem, remembered_run(run)[0]]
    kind = {ARCHITECTURE_FILE: ARCHITECTURE, REPORT_FILE: REPORT}.get(file.name, MODEL)
    return Item(_allowed("-".join(words)), kind, file, run)


def _allowed(name: str) -> str:
    """As W&B wants names."""
    return re.sub(r"[^\w.-]", "_", name)[-128:]


def _provenance(folder: Path) -> dict[str, Any]:
    """Of the network in a folder, as its file has it."""
    try:
        content = read_json(folder / ARCHITECTURE_FILE, "architecture")
    except UserError:
        return {}
    found = content.get("provenance") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def _parts(folder: Path) -> list[dict[str, Any]]:
    """What a run's results say of its network, by search, classifier and detector."""
    search, classifier, detector = (
        found if isinstance(found := results_part(folder, part), dict) else {}
        for part in ("search", "classification", "detection")
    )
    return [search, classifier, {**detector.get("cost", {}), "scores": detector.get("scores", {})}]


def _figures(part: Mapping[str, Any]) -> dict[str, Any]:
    """Runtimes, target and scores of one part of the results."""
    runtimes = ("predicted_runtime", "target_runtime", "runtime", "measured_runtime")
    names = (*runtimes, "unit", "runtime_unit")
    found = {name: part[name] for name in names if part.get(name) is not None}
    val = {f"val/{name}": value for name, value in part.get("val", {}).items()}
    scores = {
        name: value
        for name, value in leaves(part.get("scores", {})).items()
        if name.rpartition(".")[2] in METRICS
    }
    return {**found, **val, **scores}
