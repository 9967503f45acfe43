#!/usr/bin/env python
"""Judges a latency table on random networks that are measured whole: error, rank, plot (Fig. 4)."""

from __future__ import annotations

import argparse
from pathlib import Path

from backbones.errors import UserError
from search.command_line.registry import tool_command
from search.profiling.cli import (
    add_elsewhere_arguments,
    add_profiling_arguments,
    check_counts,
    check_elsewhere,
    load_space,
    measure_elsewhere,
    say_prepared,
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_profiling_arguments(parser)
    parser.add_argument(
        "--table", help="name or path of a table of this machine; of another one with --prepare"
    )
    parser.add_argument(
        "--networks", type=int, default=100, help="every other one without SE (default: 100)"
    )
    parser.add_argument("--seed", type=int, default=2, help="of the draw (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, help="JSON file to write; the plot is put beside it as PNG"
    )
    add_elsewhere_arguments(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from backbones.latency import LatencyTable
    from search.profiling.elsewhere import collect_evaluation, prepare_evaluation
    from search.profiling.evaluation import evaluate_table
    from search.profiling.report import cautions
    from search.profiling.scores import scores_table

    check_counts(args, least_networks=2)
    check_elsewhere(args)
    if args.table is None and not args.collect:
        raise UserError("--table is missing: the table to judge, e.g. output/my_cpu.json")
    if args.prepare:
        table = LatencyTable.load(args.table)
        space = load_space(args)
        prepare_evaluation(args.prepare, table, space, args.networks, args.seed, args.rounds)
        collect = ("--collect", str(args.prepare), "--output", "REPORT")
        say_prepared(args.prepare, tool_command("evaluate_latency.py", *collect))
        return
    if args.output is None:
        raise UserError("--output is missing: the report to write, e.g. output/my_report.json")
    if args.collect:
        measure_elsewhere(args)
        report = collect_evaluation(args.collect, args.output)
    else:
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
