#!/usr/bin/env python
"""Judges a latency table on random networks that are measured whole: error, rank, plot (Fig. 4)."""

from __future__ import annotations

import argparse
from pathlib import Path

from search.profiling.cli import add_profiling_arguments, check_counts, load_space


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_profiling_arguments(parser)
    parser.add_argument("--table", required=True, help="name or path of a table of this machine")
    parser.add_argument(
        "--networks", type=int, default=100, help="every other one without SE (default: 100)"
    )
    parser.add_argument("--seed", type=int, default=2, help="of the draw (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, required=True, help="JSON file to write; the plot is put beside it"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from backbones.latency import LatencyTable
    from search.profiling.evaluation import evaluate_table, scores_table
    from search.profiling.report import cautions

    check_counts(args, least_networks=2)
    report = evaluate_table(
        LatencyTable.load(args.table),
        load_space(args),
        args.output,
        args.networks,
        args.seed,
        args.rounds,
    )
    print(scores_table(report["scores"]))
    for line in cautions(report):
        print(line)
    print(f"Wrote {args.output} and {args.output.with_suffix('.png')}")


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
