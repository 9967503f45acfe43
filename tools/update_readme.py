#!/usr/bin/env python
"""Makes the README's result tables, and their plots, anew from docs/results/*.json."""

from __future__ import annotations

import argparse
from pathlib import Path

from backbones.files import read_json, write_atomic
from detection.engine.cli import run_tool
from search.profiling.plots import plot_evaluation
from search.readme import PLOTTED_STUDIES, render
from search.study_plot import plot_study
from search.tuning.report import plot_tuning


def main(args: argparse.Namespace) -> None:
    for path in args.results.glob("latency-*.json"):
        plot_evaluation(read_json(path, "report"), path.with_suffix(".png"))
    for name in PLOTTED_STUDIES:
        study = read_json(args.results / f"{name}.json", "study")
        plot_study(study, args.results / f"{name}.png")
    tuning = read_json(args.results / "tuning.json", "study")
    plot_tuning(tuning["studies"], args.results / "tuning.png")
    write_atomic(args.readme, render(args.readme.read_text(), args.results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    run_tool(main, parser.parse_args())
