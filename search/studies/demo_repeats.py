"""How much of the demo's outcome is chance: other seeds, and the same seeds rounded otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from backbones.figures import shown
from backbones.files import read_json
from backbones.inference.hardware import device_name
from detection.engine.provenance import provenance
from search.studies.commands import (
    Command,
    check_folders,
    run_beside,
)
from search.studies.demo import demo_commands
from search.studies.markdown import beside, table
from search.studies.workers import Workers

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Repeat:
    """One repetition of the demo.

    Attributes:
        seed: of all its stages.
        threads: of its processes. Another number sums in another order, and so rounds otherwise.
        by_channel: whether images lie in memory by channel, which rounds otherwise too.
        whole: False ends with the search.
    """

    seed: int
    threads: int
    by_channel: bool = False
    whole: bool = True

    @property
    def name(self) -> str:
        """The repetition's folder."""
        layout = "_by_channel" if self.by_channel else ""
        return f"seed{self.seed}_threads{self.threads}{layout}"

    def commands(self, folder: Path) -> list[Command]:
        """What is run for it in ``folder``."""
        layout = ("MODEL.SPNAS.CHANNELS_LAST", "False") if self.by_channel else ()
        stages = demo_commands(folder / self.name, self.seed)
        return [
            replace(stage, threads=self.threads, options=(*stage.options, *layout))
            for stage in (stages if self.whole else stages[:-1])
        ]

    def row(self, folder: Path) -> dict[str, Any]:
        """What came out."""
        results: dict[str, Any] = {}
        for command in self.commands(folder):
            results |= read_json(command.folder / "results.json", "results")  # the last ones
        found = results["search"]
        row = {
            "seed": self.seed,
            "threads": self.threads,
            "by_channel": self.by_channel,
            "layers": found["layers"],
            "predicted_runtime": found["predicted_runtime"],
            "unit": found["unit"],
        }
        if not self.whole:
            return row
        (scores,) = results["detection"]["scores"].values()
        return {
            **row,
            "box_AP": scores["bbox"]["AP"],
            "mask_AP": scores["segm"]["AP"],
        }


def repeats(seeds: int, threads: Sequence[int]) -> list[Repeat]:
    """The demo with every seed, and every seed's search with other rounding: threads, layout."""
    first, *others = threads
    rounded = [Repeat(seed, number, whole=False) for number in others for seed in range(seeds)]
    by_channel = [Repeat(seed, first, by_channel=True, whole=False) for seed in range(seeds)]
    return [*(Repeat(seed, first) for seed in range(seeds)), *rounded, *by_channel]


def demo_repeats(
    seeds: int, threads: Sequence[int], folder: Path, workers: Workers
) -> dict[str, object]:
    """Runs what is not done yet, and returns the study.

    Args:
        seeds: how many, from 0.
        threads: of a process: of the demos, and of the searches to compare with theirs.
        folder: of the runs; those that are finished are kept.
        workers: where they run.

    Raises:
        UserError: if the folder holds runs of other configurations, or a run fails.
    """
    origin = provenance()  # of the code that runs, not of what is committed meanwhile
    wanted = repeats(seeds, threads)
    check_folders(stage for repeat in wanted for stage in repeat.commands(folder))
    missing = [
        [stage for stage in repeat.commands(folder) if not stage.finished] for repeat in wanted
    ]
    for index in run_beside([stages for stages in missing if stages], workers):
        print(f"{index + 1} of {sum(map(bool, missing))} has ended", flush=True)
    rows = [repeat.row(folder) for repeat in wanted]
    cluster = workers.cluster
    hardware = str(cluster) if cluster and cluster.elsewhere else device_name("cpu")
    return {**origin, "hardware": hardware, "repeats": rows}


def demo_repeats_section(study: Mapping[str, Any]) -> str:
    """The networks and the figures, their spread, and how far searches of one seed agree."""
    rows: list[Row] = study["repeats"]
    parts = [_networks(rows), _spread(rows), _agreement(rows), beside(study)]
    return "\n\n".join(parts)


def _networks(rows: Sequence[Row]) -> str:
    cells = [
        [
            str(row["seed"]),
            str(row["threads"]) + (", by channel" if row["by_channel"] else ""),
            " ".join(row["layers"]),
            f"{shown(row['predicted_runtime'])} {row['unit']}",
            *(f"{row[key]:.2f}" if key in row else "–" for key in _figures(rows)),
        ]
        for row in sorted(rows, key=lambda row: (row["seed"], row["by_channel"], row["threads"]))
    ]
    return table(["seed", "threads", "layers", "predicted", *_figures(rows).values()], cells)


_FIGURES = {"top1": "held-out digits (%)", "box_AP": "box AP", "mask_AP": "mask AP"}


def _figures(rows: Sequence[Row]) -> dict[str, str]:
    """Those that there are: the demo of earlier versions had a classifier."""
    return {key: title for key, title in _FIGURES.items() if any(key in row for row in rows)}


def _spread(rows: Sequence[Row]) -> str:
    cells = []
    for key, title in _figures(rows).items():
        values = np.array([row[key] for row in rows if key in row])
        spread = f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" if len(values) > 1 else "–"
        cells.append([title, spread, f"{values.min():.2f}", f"{values.max():.2f}"])
    return table(["over the seeds", "mean ± deviation", "lowest", "highest"], cells)


def _agreement(rows: Sequence[Row]) -> str:
    """Layers on which two searches agree, by what differs between them."""

    def same(one: Row, other: Row, *keys: str) -> bool:
        return all(one[key] == other[key] for key in keys)

    kinds: dict[str, Callable[[Row, Row], bool]] = {
        "the number of threads": lambda a, b: same(a, b, "seed", "by_channel"),
        "the layout in memory": lambda a, b: same(a, b, "seed", "threads"),
        "the seed": lambda a, b: same(a, b, "threads", "by_channel"),
    }
    cells = []
    for title, alike in kinds.items():
        pairs = [(a, b) for a, b in combinations(rows, 2) if alike(a, b)]
        if pairs:
            equal = [_equal_layers(a["layers"], b["layers"]) for a, b in pairs]
            layers = len(rows[0]["layers"])
            cells.append(
                [
                    title,
                    str(len(pairs)),
                    str(sum(number == layers for number in equal)),
                    f"{np.mean(equal):.1f} of {layers}",
                    f"{min(equal)} of {layers}",
                ]
            )
    headers = ["two searches differ in", "pairs", "same network", "equal layers, mean", "lowest"]
    return table(headers, cells)


def _equal_layers(one: Iterable[str], other: Iterable[str]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))
