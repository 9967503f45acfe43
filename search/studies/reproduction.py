"""What the paper's tables and figures take at full size, and what small ones came to here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.studies.benchmarks.gpu.full_size import GPUS, RECIPES
from search.studies.markdown import beside, table
from search.studies.tuning.solvers import GRID_WEIGHTS

SEARCH_EPOCHS, TRAINING_EPOCHS, PROXY_EPOCHS = 8, 350, 5
"""Of a search, of a final classifier, and of one that stands for it in Fig. 8 (Sec. V and VII)."""

LATE_LAYERS = 4
"""Whose SE costs nearly nothing on the paper's phone (Sec. V)."""


@dataclass(frozen=True)
class Work:
    """What is trained for a table or a figure, in epochs of ImageNet.

    Attributes:
        of: the table or figure.
        what: in words.
        searched: epochs of single-path supernets.
        multi_path: epochs of multi-path supernets of half width.
        trained: epochs of mobile networks, at the cost of ``spnas_100``.
        largest: epochs of the space's largest network.
        detectors: 1x trainings of Mask R-CNN.
    """

    of: str
    what: str
    searched: float = 0.0
    multi_path: float = 0.0
    trained: float = 0.0
    largest: float = 0.0
    detectors: int = 0


_GRID_EPOCHS = GRID_WEIGHTS * sum(range(2, SEARCH_EPOCHS + 1))

WORKS = (
    Work(
        *("Table I, Figs. 1, 5 and 6", "a search, the network found and seven published ones"),
        searched=SEARCH_EPOCHS,
        trained=8 * TRAINING_EPOCHS,
    ),
    Work("Table I, random search", "ten networks", trained=10 * TRAINING_EPOCHS),
    Work("Table II", "two networks, and one with two losses a step", largest=4 * TRAINING_EPOCHS),
    Work("Table III", "four detectors, on classifiers of Table I", detectors=4),
    Work("Fig. 7", "three networks at three more widths", trained=9 * TRAINING_EPOCHS),
    Work(
        *("Fig. 8", "20 searches a formulation; they, random networks and samples, 5 epochs each"),
        searched=3 * 20 * SEARCH_EPOCHS,
        multi_path=20 * SEARCH_EPOCHS,
        trained=7 * 20 * PROXY_EPOCHS,
    ),
    Work(
        *("Fig. 9", "three solvers, five times 400 epochs each, and the grid"),
        searched=3 * 5 * 400 + _GRID_EPOCHS,
    ),
)
"""In the paper's order."""


def gpu_hours(work: Work, report: Mapping[str, Any]) -> float:
    """Hours of one GPU that the steps take, without reading data and without exchange of GPUs.

    Args:
        work: what is trained.
        report: of ``benchmark.py gpu``, with its parts b, c and d.
    """
    parts = report["parts"]
    search = parts["b"]["figures"]["float32"]["steps"]
    classifier = parts["c"]["figures"]["float32"]["steps"]
    detector = parts["d"]["figures"]["training, float32, batch 16"]["steps"]
    recipe = RECIPES["ImageNet search"]
    # of one GPU, whose part of a batch is what the steps were measured with
    steps = recipe.steps / SEARCH_EPOCHS * GPUS
    seconds = steps * (
        work.searched * search["supernet"]["seconds"]
        + work.multi_path * search["multi_path"]["seconds"]
        + work.largest * search["largest"]["seconds"]
        + work.trained * classifier["spnas"]["seconds"]
    )
    seconds += work.detectors * RECIPES["COCO Mask R-CNN"].steps * detector["spnas_100"]["seconds"]
    return seconds / 3600


def hours_section(report: Mapping[str, Any]) -> str:
    """GPU hours of every table and figure, as a page's section."""
    rows = [[work.of, work.what, f"{gpu_hours(work, report):,.0f}"] for work in WORKS]
    made = dict.fromkeys(beside(report["parts"][part]) for part in "bcd")
    return "\n\n".join([table(["of", "what is trained", "GPU hours"], rows), *made])


def se_section(*reports: Mapping[str, Any]) -> str:
    """How much longer layers take with SE, the early ones and the last four (Fig. 4, right)."""
    rows = []
    for report in reports:
        factors = report["se_factors"]
        if factors:
            early = [_mean(layers[:-LATE_LAYERS]) for layers in factors.values()]
            late = [_mean(layers[-LATE_LAYERS:]) for layers in factors.values()]
            rows.append([f"`{report['table']}`", *(f"{x:.2f} ×" for x in (*early, *late))])
    ratios = [*next(report["se_factors"] for report in reports if report["se_factors"])]
    where = ("layers 1 to 16", f"last {LATE_LAYERS}")
    return table(["table", *(f"SE {ratio}, {of}" for of in where for ratio in ratios)], rows)


def _mean(layers: Sequence[Sequence[float]]) -> float:
    """Of the middle ones of the lowest, mean and highest factor of a layer's types."""
    return statistics.fmean(mean for _, mean, _ in layers)
