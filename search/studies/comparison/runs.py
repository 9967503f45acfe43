"""Finished detector runs, read from their folders, and whether they go together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.files import differing, read_json
from backbones.zoo import load_architecture
from detection.engine.metrics import read_metrics
from detection.engine.reuse import read_config
from detection.report import ModelCost
from detection.scoring import METRICS
from search.command_line.registry import tool_command

PER_RUN = (
    *("MODEL.SPNAS.ARCH", "MODEL.SPNAS.WIDTH_MULT", "MODEL.TIMM.NAME", "MODEL.TIMM.PRETRAINED"),
    *("MODEL.BACKBONE.NAME", "MODEL.WEIGHTS", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
    *("OUTPUT_DIR", "SEED"),
)
"""Keys in which compared runs may differ: the network, what its weights were trained with, and the
run. W&B's and the number of loader processes may differ as well."""

_NEEDED = ("MODEL.SPNAS.ARCH", "MODEL.SPNAS.WIDTH_MULT", "SEED", "SOLVER.IMS_PER_BATCH")
"""Keys that are read by name; those of a file that is cut end before them."""

_FREE = ("WANDB.", "DATALOADER.NUM_WORKERS")


@dataclass(frozen=True)
class DetectorRun:
    """One finished run of ``tools/train_net.py``.

    Attributes:
        folder: of the run.
        name: of the row.
        seed: of the run.
        recipe: the configuration by dotted keys, without those in which runs may differ.
        scores: AP figures in percent by task; None where there is no object to find.
        cost: of the model.
        train_images: a second, by the median iteration; None if the run kept no metrics.
        architecture: of the backbone; None for one that is not ours, or if its file has gone since.
        classifier: top-1 and top-5 in percent of the classifier that the run began from.
    """

    folder: Path
    name: str
    seed: int
    recipe: dict[str, Any]
    scores: dict[str, dict[str, float | None]]
    cost: ModelCost
    train_images: float | None = None
    architecture: Architecture | None = None
    classifier: dict[str, float] = field(default_factory=dict)


def load_run(folder: Path, name: str | None = None, classifier: Path | None = None) -> DetectorRun:
    """What a run folder says.

    Args:
        folder: ``OUTPUT_DIR`` of a finished run.
        name: of the row; None takes the folder's name, or its parent's where it is ``seed…``.
        classifier: run folder of the classifier.

    Raises:
        UserError: if the folder holds no finished detector, or one of several test sets.
    """
    try:
        return _loaded(folder, name, classifier)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # values of other types, or keys that another version writes
        raise UserError(
            f"the files of the run '{folder}' are not as this version writes them "
            f"({type(error).__name__}: {error}); write its results again by "
            f"{tool_command('train_net.py', '--eval-only')}, or leave it out"
        ) from None


def _loaded(folder: Path, name: str | None, classifier: Path | None) -> DetectorRun:
    found = _finished(folder, "detection", "train_net.py")
    if len(found["scores"]) != 1:
        raise UserError(
            f"'{folder}' was evaluated on {', '.join(found['scores'])}; runs are compared on one "
            "test set: evaluate with DATASETS.TEST of one"
        )
    (scores,) = found["scores"].values()
    config = whole_config(folder)
    own = folder.parent.name if folder.name.startswith("seed") else folder.name
    top: dict[str, float] = {}
    if classifier is not None:
        trained = _finished(classifier, "classification", "train_classifier.py")
        top = {key: trained["val"][key] for key in ("top1", "top5")}
    return DetectorRun(
        folder=folder,
        name=name or own,
        seed=int(config["SEED"]),
        recipe={
            key: value
            for key, value in config.items()
            if key not in PER_RUN and not key.startswith(_FREE)
        },
        scores={task: {m: figures.get(m) for m in METRICS} for task, figures in scores.items()},
        cost=ModelCost(**found["cost"]),
        train_images=training_speed(folder, int(config["SOLVER.IMS_PER_BATCH"])),
        architecture=_architecture(config, found["cost"]["backbone"]),
        classifier=top,
    )


def _finished(folder: Path, part: str, script: str) -> Any:
    """A part of the results of a run that has come to its end."""
    tool = tool_command(script)
    results = read_json(folder / "results.json", f"results of a run of '{tool}'")
    if not isinstance(results, dict) or not isinstance(results.get(part), dict):
        raise UserError(f"'{folder}' is not a run of '{tool}'; its results are of others")
    return results[part]


def whole_config(folder: Path) -> dict[str, Any]:
    """``config.yaml`` of a run folder by dotted keys, with those that are read by name.

    Raises:
        UserError: if there is none, or it is no YAML, or a part of it is missing.
    """
    config = read_config(folder)
    if missing := [key for key in _NEEDED if key not in config]:
        raise UserError(
            f"'{folder / 'config.yaml'}' is not the whole configuration of a run: it has no "
            f"{missing[0]}; write it again by the run's command with --resume"
        )
    return config


def training_speed(folder: Path, batch: int) -> float | None:
    """Images a second, by the median iteration in ``metrics.json``."""
    times = [row["time"] for row in read_metrics(folder) if row.get("time")]
    return batch / statistics.median(times) if times else None


def _architecture(config: Mapping[str, Any], backbone: str) -> Architecture | None:
    """The network of ``MODEL.SPNAS``, if that is the backbone whose cost the run found."""
    try:
        architecture = load_architecture(config["MODEL.SPNAS.ARCH"])
    except UserError:  # the file may have gone since
        return None
    architecture = architecture.scaled(config["MODEL.SPNAS.WIDTH_MULT"])
    return architecture if architecture.name == backbone else None


def check_recipe(runs: Sequence[DetectorRun]) -> None:
    """Insists on one recipe for all runs: a comparison is worth nothing otherwise.

    Raises:
        UserError: naming the keys in which a run differs from the first one.
    """
    for run in runs[1:]:
        first, other = runs[0].recipe, run.recipe
        if changed := differing(first, other):
            shown = ", ".join(f"{k} {other.get(k)} for {first.get(k)}" for k in changed[:3])
            raise UserError(
                f"'{run.folder}' was trained by another recipe than '{runs[0].folder}': {shown}; "
                "compare runs of one recipe"
            )
