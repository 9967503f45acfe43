"""Part a: every stage for some steps in mixed precision, stopped and resumed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from detection.engine.results import results_part
from search.command_line.registry import tool_words
from search.studies.benchmarks.costs import error_line, precision_options
from search.studies.benchmarks.gpu.runs import (
    losses,
    losses_are_finite,
    peak_bytes,
    run_tool,
)
from search.studies.benchmarks.gpu.setting import Figures, Measurement, Setting
from search.studies.kills.kinds import KINDS, prepare

STEPS, DETECTOR_STEPS = 30, 40
"""Of a run; a detector's rows of metrics are 20 iterations apart."""

BATCH = 32
"""Images per step of a classification."""

LIMIT = 60
"""Seconds that a run, or its second half, may take on a GPU."""

STOPPED = 143
"""Exit code of a run that SIGTERM has stopped in order."""


@dataclass(frozen=True)
class Check:
    """One stage in one precision.

    Attributes:
        kind: of the runs of ``search.studies.kills`` that is the same in small.
        script: below ``tools/``.
        config_file: of the run.
        part: of ``results.json`` that it ends with.
        precision: one of ``PRECISIONS``.
        options: further keys and values.
    """

    kind: str
    script: str
    config_file: str
    part: str
    precision: str
    options: tuple[str, ...] = ()


_SCENES = (
    *("SOLVER.MAX_ITER", str(DETECTOR_STEPS), "SOLVER.WARMUP_ITERS", "10"),
    *("SOLVER.CHECKPOINT_PERIOD", "20"),
)
_SEARCH = ("search", "search_net.py", "configs/search/digits.yaml", "search")

CHECKS = {
    "search, float16": Check(*_SEARCH, "float16"),
    "search, bfloat16": Check(*_SEARCH, "bfloat16"),
    "classifier": Check(
        "classifier",
        "train_classifier.py",
        "configs/classification/digits.yaml",
        "classification",
        "float16",
        ("CLASSIFICATION.EMA_DECAY", "0.99", "MODEL.SPNAS.ARCH", "spnas_100"),
    ),
    "Mask R-CNN": Check(
        "detector",
        "train_net.py",
        "configs/detection/mask_rcnn_spnas_fpn_digits.yaml",
        "detection",
        "float16",
        (*_SCENES, "MODEL.SPNAS.ARCH", "spnas_100"),
    ),
    "detector search": Check(
        "detector search",
        "search_net.py",
        "configs/search/mask_rcnn_digits.yaml",
        "search",
        "float16",
        _SCENES,
    ),
}


def measurements(setting: Setting, names: tuple[str, ...] = tuple(CHECKS)) -> Iterator[Measurement]:
    """All of them, side by side."""
    yield "checks", partial(_all, setting, names)


def _all(setting: Setting, names: tuple[str, ...]) -> Figures:
    setting.prepare_digits()
    if setting.tiny:
        prepare(setting.folder)
    workers = 1 if setting.device == "cpu" else len(names)
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(partial(_checked, setting, workers), names)
        return dict(zip(names, found, strict=True))


def _checked(setting: Setting, workers: int, name: str) -> dict[str, Any]:
    try:
        return check(setting, CHECKS[name], setting.fresh(f"checks/{_slug(name)}"), workers)
    except Exception as error:
        return {"error": error_line(error)}


def check(setting: Setting, chosen: Check, run: Path, workers: int = 1) -> dict[str, Any]:
    """A run that is stopped by SIGTERM behind its first checkpoint, and resumed to its end.

    Args:
        setting: of the benchmark.
        chosen: what to run.
        run: its folder.
        workers: checks that run at the same time.

    Returns:
        ``steps`` done before the stop and in all, the first and the last ``losses`` logged,
        ``seconds`` of both halves, and on a GPU ``peak_bytes``.

    Raises:
        UserError: if a half does not end as it should.
    """
    words = _words(setting, chosen, run)
    limit = LIMIT if setting.device == "cuda" else 10 * LIMIT
    environment = setting.environment(workers)
    begun = (run / "last_checkpoint").exists
    first = run_tool(words, environment, run.with_suffix(".log"), begun, limit)
    if first.code != STOPPED:
        raise UserError(f"before the stop, exit code {first.code}: {first.last_line}")
    again = run.with_suffix(".again.log")
    second = run_tool([*words], environment, again, lambda: False, limit)
    if second.code or results_part(run, chosen.part) is None:
        raise UserError(f"resumed, exit code {second.code}: {second.last_line}")
    if not losses_are_finite(run):
        raise UserError(f"losses are {losses(run)}")
    found = re.search(r"after iteration (\d+) of (\d+)", first.last_line)
    return {
        "steps": [int(n) for n in found.groups()] if found else None,
        "losses": [losses(run)[0], losses(run)[-1]],
        "seconds": [first.seconds, second.seconds],
        "peak_bytes": peak_bytes(first.output + second.output),
    }


def _words(setting: Setting, chosen: Check, run: Path) -> list[str]:
    detector = chosen.kind.startswith("detector")
    precision = chosen.precision if setting.device == "cuda" else "bfloat16"  # float16 needs a GPU
    options = ("MODEL.DEVICE", setting.device, *precision_options(precision))
    if not detector:
        epochs = BATCH * STEPS / setting.digits.images_train
        options += (
            *("SOLVER.IMS_PER_BATCH", str(BATCH), "SOLVER.WARMUP_EPOCHS", "0.0"),
            *("CLASSIFICATION.EPOCHS", f"{epochs:.5f}"),
            *("CLASSIFICATION.CHECKPOINT_EPOCHS", f"{epochs / 3:.5f}", "VIS_PERIOD", "5"),
        )
    if setting.tiny:
        (kind,) = (kind for kind in KINDS if kind.name == chosen.kind)
        return [*kind.words(setting.folder, run), *options]
    return [
        *(*tool_words(chosen.script), "--config-file", chosen.config_file),
        *(*setting.processes, "--resume", "OUTPUT_DIR", str(run)),
        *("WANDB.ENABLED", "False", *chosen.options, *options),
    ]


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name)
