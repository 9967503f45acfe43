#!/usr/bin/env python
"""Makes the tables of README.md and docs/*.md, and the plots of docs/results/*.json."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backbones.files import read_json, write_atomic


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", type=Path, default=Path(), help="top of the checkout (default: the folder here)"
    )
    return parser.parse_args()


def plots() -> dict[str, Callable[[Any, Path], None]]:
    """What draws a result, by its file."""
    from search.profiling.plots import plot_evaluation
    from search.studies.comparison.tables import plot_comparison
    from search.studies.methods.plot import plot_study
    from search.studies.tuning.report import plot_tuning

    return {
        "latency-*": plot_evaluation,
        **dict.fromkeys(("compare-search", "targets"), plot_study),
        "comparison": lambda study, path: plot_comparison(study["rows"], path),
        "tuning": lambda study, path: plot_tuning(study["studies"], path),
    }


def main(args: argparse.Namespace) -> None:
    from search.studies.pages import RESULTS, render_pages

    for pattern, plot in plots().items():
        for path in (args.root / RESULTS).glob(f"{pattern}.json"):
            plot(read_json(path, "study"), path.with_suffix(".png"))
    for page, text in render_pages(args.root).items():
        write_atomic(page, text)


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
