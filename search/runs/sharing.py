"""A run's model for others: which of its files it is made of, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE, BACKBONE_FILE
from backbones.published import load_state
from backbones.sharing.facts import Kind
from backbones.sharing.folder import check_folder, save_pretrained
from detection.sharing.detector import save_detector
from detection.sharing.run import (
    CONFIG_YAML,
    DETECTOR_WEIGHTS,
    Run,
    facts_of,
    read_run,
    shared_config,
    without_folders,
)
from search.classification.data import known_classes


def share(
    run_folder: str | Path,
    output: str | Path,
    *,
    name: str = "",
    license: str = "apache-2.0",
    weights: str = "",
    repository: str = "",
    replace: bool = False,
) -> Path:
    """Writes the folder of a shared model from what a run has left.

    Args:
        run_folder: of a search, a classifier or a detector; of a search on a detector, the
            backbone found is shared.
        output: the folder to write.
        name: of the model; empty takes the folder's.
        license: of the weights, as the hub writes it.
        weights: a file; empty takes ``backbone.pth``, or ``model_final.pth`` of a detector.
        repository: ``USER/NAME`` on the hub, for the model card; empty where it is not known.
        replace: whether files of an earlier model in ``output`` may be replaced.

    Raises:
        UserError: if the run has no such files, they do not fit, or ``output`` holds a model.
    """
    run = read_run(run_folder)
    if Path(output).resolve() == run.folder.resolve():
        raise UserError(f"'{output}' is the run itself; name another folder for the model")
    check_folder(output, replace)
    name = name or Path(output).resolve().name
    file = Path(weights or run.folder / (BACKBONE_FILE if run.architecture else DETECTOR_WEIGHTS))
    if not file.is_file():
        raise UserError(f"no weights at '{file}'; name the file: --weights FILE (weights=...)")
    if run.architecture is None:
        facts = facts_of(run, "detector", name, license, repository)
        return save_detector(output, run, file, facts, replace=replace)
    state = load_state(file, run.architecture)
    classes = len(state["classifier.weight"]) if "classifier.weight" in state else 0
    kind: Kind = "classifier" if classes else "backbone"
    return save_pretrained(
        output,
        _without_folders(run.architecture),
        state,
        facts_of(run, kind, name, license, repository),
        known_classes(run.config.get("CLASSIFICATION", {}).get("DATASET", ""), classes),
        replace=replace,
        preprocessing=_preprocessing(run, run.architecture),
        further={CONFIG_YAML: shared_config(run, MODEL__SPNAS__ARCH=ARCHITECTURE_FILE)}
        if run.config
        else {},
    )


def _preprocessing(run: Run, architecture: Architecture) -> dict[str, Any]:
    """What the classifier's configuration says of its images, by timm's keys."""
    node = run.config.get("CLASSIFICATION", {})
    size = node.get("INPUT_SIZE") or architecture.input.size
    return {"input_size": (3, size, size), "crop_pct": node.get("CROP_PCT", 0.875)}


def _without_folders(architecture: Architecture) -> Architecture:
    return Architecture.from_dict(without_folders(architecture.to_dict()))
