#!/usr/bin/env python
"""Makes the README's result tables, and their plots, anew from docs/results/*.json."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backbones.files import read_json, write_atomic
from detection.engine.cli import run_tool
from search.profiling.plots import plot_evaluation
from search.studies.comparison.tables import plot_comparison
from search.studies.methods.plot import plot_study
from search.studies.pages import PLOTTED_STUDIES, render
from search.studies.tuning.report import plot_tuning

PLOTS: dict[str, Callable[[Any, Path], None]] = {
    "latency-*": plot_evaluation,
    **dict.fromkeys(PLOTTED_STUDIES, plot_study),
    "comparison": lambda study, path: plot_comparison(study["rows"], path),
    "tuning": lambda study, path: plot_tuning(study["studies"], path),
}
"""What draws a result, by its file."""


def main(args: argparse.Namespace) -> None:
    for pattern, plot in PLOTS.items():
        for path in args.results.glob(f"{pattern}.json"):
            plot(read_json(path, "study"), path.with_suffix(".png"))
    write_atomic(args.readme, render(args.readme.read_text(), args.results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    run_tool(main, parser.parse_args())
