"""What a run's own files say of it, for a model card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE, BACKBONE_FILE
from backbones.files import leaves, read_json
from backbones.latency import LatencyTable
from backbones.sharing.card import PAPER
from backbones.sharing.facts import PLACEHOLDER, Facts, Kind, Runtime, Score
from detection.engine.plain_yaml import load_with_bases
from detection.engine.results import RESULTS_FILE
from detection.report import TASK_NAMES

CONFIG_YAML = "config.yaml"
DETECTOR_WEIGHTS = "model_final.pth"

_SEARCH, _CLASSIFIER, _DETECTOR = "search", "classification", "detection"
"""Parts of ``results.json``."""

_RECIPES = {
    _SEARCH: ("SEARCH.SPACE", "SEARCH.FORMULATION", "SEARCH.TARGET", "SEARCH.LATENCY_TABLE"),
    _CLASSIFIER: ("CLASSIFICATION.EPOCHS", "CLASSIFICATION.INPUT_SIZE"),
    _DETECTOR: (
        *("MODEL.META_ARCHITECTURE", "SOLVER.MAX_ITER"),
        *("INPUT.MIN_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST"),
    ),
}
_COMMON = (
    *("SOLVER.OPTIMIZER", "SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH", "SOLVER.WEIGHT_DECAY"),
    "SEED",
)
"""Keys of a configuration that a model card shows: of each part, and of all."""

_AP = {"AP": "AP", "AP50": "AP50", "AP75": "AP75"} | {
    f"AP{letter}": f"AP, {size} objects"
    for letter, size in (("s", "small"), ("m", "medium"), ("l", "large"))
}
_HUB_TASKS = {
    "bbox": "object-detection",
    "segm": "image-segmentation",
    "keypoints": "keypoint-detection",
}

# The folders of an absolute path, wherever in a value it stands, but not those of an address.
_FOLDERS = re.compile(r"(?<![\w./\\~-])(?:~|[A-Za-z]:)?[/\\](?:[^/\\:=\n'\",]+[/\\])*")


@dataclass(frozen=True)
class Run:
    """The folder of a run, and what its files hold.

    Attributes:
        folder: of the run.
        config: its ``config.yaml``, as nested plain data; empty without one.
        results: its ``results.json``; empty without one.
        architecture: that it found or trained; None of a detector.
    """

    folder: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    architecture: Architecture | None


def read_run(folder: str | Path) -> Run:
    """The files of a search, a classifier or a detector.

    Raises:
        UserError: if the folder holds none of them.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"no run at '{folder}'; name the OUTPUT_DIR of a search or a training")
    file = folder / ARCHITECTURE_FILE
    config = folder / CONFIG_YAML
    if not file.is_file() and not (config.is_file() and _detector_like(folder)):
        raise UserError(
            f"'{folder}' holds no model: expected {ARCHITECTURE_FILE} and {BACKBONE_FILE} of a "
            f"search or a classifier, or {CONFIG_YAML} and {DETECTOR_WEIGHTS} of a detector; is "
            "the run finished?"
        )
    results = folder / RESULTS_FILE
    found = read_json(results, "results") if results.is_file() else {}
    return Run(
        folder,
        load_with_bases(str(config)) if config.is_file() else {},
        found if isinstance(found, dict) else {},
        Architecture.load(file) if file.is_file() else None,
    )


def facts_of(run: Run, kind: Kind, name: str, license: str, repository: str = "") -> Facts:
    """What a model card can state of a run.

    Args:
        run: the run.
        kind: of what is shared of it.
        name: of the model.
        license: of the weights.
        repository: ``USER/NAME`` on the hub; empty where it is not known.
    """
    return Facts(
        name=name,
        kind=kind,
        license=license,
        datasets=_datasets(run),
        summary=_summary(run),
        scores=(*_top1(run), *_average_precisions(run)),
        runtimes=tuple(_runtimes(run)),
        recipe=_recipe(run),
        source=_source(run),
        repository=repository or PLACEHOLDER,
    )


def without_folders(value: Any) -> Any:
    """A setting or nested ones, with the last part alone of every absolute path in them.

    Where a user keeps files is nothing that a shared model has to tell.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if isinstance(value, str) and "://" not in value:
        return _FOLDERS.sub("", value)
    return value


def shared_config(run: Run, **changes: Any) -> str:
    """The run's configuration as YAML, without the folders of this machine.

    Args:
        run: the run.
        changes: by dotted key with ``__`` for the dot, e.g. ``MODEL__WEIGHTS=""``.
    """
    config = without_folders(run.config)
    for key, value in {"OUTPUT_DIR": "output", **changes}.items():
        *sections, last = key.split("__")
        node = config
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return str(yaml.safe_dump(config))


def _detector_like(folder: Path) -> bool:
    return any(folder.glob("model_*.pth"))


def _datasets(run: Run) -> tuple[str, ...]:
    if run.architecture is None or _SEARCH not in run.results:
        trained = run.config.get("DATASETS", {}).get("TRAIN", ())
        classified = run.config.get("CLASSIFICATION", {}).get("DATASET")
        names = [classified] if run.architecture and classified else list(trained)
    else:
        names = str(run.architecture.provenance.get("dataset", "")).split(", ")
    return tuple(_short(name) for name in names if name)


def _short(name: str) -> str:
    """A data set by its name, or by the last part of its path."""
    return Path(str(without_folders(name)).partition(":")[0]).name


def _recipe(run: Run) -> dict[str, str]:
    settings = leaves(run.config)
    parts = [key for part, keys in _RECIPES.items() if part in run.results for key in keys]
    return {
        key: str(without_folders(settings[key]))
        for key in (*parts, *_COMMON)
        if settings.get(key) not in (None, "", [])
    }


def _summary(run: Run) -> dict[str, str]:
    cost = run.results.get(_DETECTOR, {}).get("cost", {})
    params = run.results.get(_CLASSIFIER, {}).get("params")
    found = {"parameters": params} if params else {}
    if cost and run.architecture is None:
        height, width = cost["input_size"]
        found = {
            "parameters, whole detector": cost["params_detector"],
            "parameters, backbone": cost["params_backbone"],
            f"multiply-accumulates, backbone at {height}×{width}": cost["macs_backbone"],
        }
    return {what: f"{value / 1e6:.2f} M" for what, value in found.items()}


def _top1(run: Run) -> list[Score]:
    if run.architecture is None:
        return []
    for part, metric in ((_CLASSIFIER, "top-1"), (_SEARCH, "top-1, with the supernet's weights")):
        value = run.results.get(part, {}).get("val", {}).get("top1")
        if value is not None:
            dataset = _short(run.config.get("CLASSIFICATION", {}).get("DATASET") or "held-out")
            return [Score("image-classification", dataset, metric, value, "accuracy")]
    return []


def _average_precisions(run: Run) -> list[Score]:
    return [
        Score(
            _HUB_TASKS.get(task, task),
            _short(dataset),
            f"{TASK_NAMES.get(task, task)} {metric}",
            found[key],
            "map",
        )
        for dataset, tasks in run.results.get(_DETECTOR, {}).get("scores", {}).items()
        for task, found in tasks.items()
        for key, metric in _AP.items()
        if found.get(key) is not None
    ]


def _runtimes(run: Run) -> list[Runtime]:
    """Target and prediction by the latency table, then what was measured."""
    search = run.results.get(_SEARCH, {})
    trained = run.results.get(_CLASSIFIER, {})
    cost = run.results.get(_DETECTOR, {}).get("cost", {})
    found = run.architecture.provenance if run.architecture else {}

    def first(*values: Any) -> Any:
        return next((value for value in values if value), "")

    table = first(*(part.get("latency_table") for part in (search, trained, cost, found)))
    unit = first(search.get("unit"), trained.get("unit"), cost.get("runtime_unit"), "ms")
    of = first(trained.get("runtime_of"), cost.get("runtime_of"))
    by_table = (unit, _device(table), of)
    measured = search if search.get("measured_runtime") else cost
    predicted = [part.get("predicted_runtime") for part in (search, trained, found)]
    rows = [
        ("target", first(search.get("target_runtime"), _searched_target(found, table)), *by_table),
        ("predicted", first(*predicted, cost.get("runtime")), *by_table),
        ("measured", measured.get("measured_runtime"), "ms", measured.get("measured_with"), of),
        ("measured, whole detector", cost.get("detector_runtime"), "ms", "PyTorch", _size(cost)),
    ]
    return [
        Runtime(what, value, unit, where or "", of)
        for what, value, unit, where, of in rows
        if value
    ]


def _searched_target(provenance: Mapping[str, Any], table: str) -> float | None:
    """The target of the search that an architecture is from, if it was by this table."""
    settings = provenance.get("config")
    if not isinstance(settings, Mapping) or provenance.get("latency_table") != table:
        return None
    return settings.get("TARGET")


def _size(cost: Mapping[str, Any]) -> str:
    return "×".join(map(str, cost.get("input_size", ())))


def _device(table: str | None) -> str:
    """A latency table with the device that it is of, where the table is at hand."""
    if not table:
        return ""
    name = str(without_folders(table))
    try:
        return f"{name}: {LatencyTable.load(table).device}"
    except UserError:
        return name


def _source(run: Run) -> str:
    found = run.architecture.provenance if run.architecture else {}
    made = f"Made by spnas, a detection-aware backbone search by {PAPER}."
    if "iterations" not in found:
        return made
    return (
        f"{made} The architecture was searched on `{_short(found.get('dataset', ''))}` by "
        f"`{found.get('method')}` in {found['iterations']} iterations with seed "
        f"{found.get('seed')}."
    )
