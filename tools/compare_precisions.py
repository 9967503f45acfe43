#!/usr/bin/env python
"""Compares networks in int8 with the same in float: order, costs of options, networks found.

Order and costs are those of two tables that differ in their precision alone, and of the random
networks that both were judged on. What searches found is measured on this machine, in both
precisions, and kept beside the output until the study is written: an interrupted one goes on.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from backbones.errors import UserError
from search.profiling.cli import add_profiling_arguments, load_space


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_profiling_arguments(parser)
    parser.add_argument(
        "--tables",
        nargs=2,
        required=True,
        metavar=("FLOAT", "INT8"),
        help="names or paths of two tables",
    )
    parser.add_argument(
        "--evaluations",
        nargs=2,
        required=True,
        type=Path,
        metavar=("FLOAT", "INT8"),
        help="reports of both, by profile_latency.py --evaluation or evaluate_latency.py",
    )
    parser.add_argument(
        "--found",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="also measure what these searches found, of every seed one on each table",
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from backbones.files import read_json, write_json
    from backbones.latency import LatencyTable
    from detection.engine.provenance import provenance
    from search.studies.precisions.report import precisions_section
    from search.studies.precisions.study import precision_study

    if args.rounds < 1:
        raise UserError(f"--rounds is {args.rounds}; expected 1 or more")
    tables = [LatencyTable.load(name) for name in args.tables]
    evaluations = [read_json(path, "evaluation") for path in args.evaluations]
    partial = args.output.with_suffix(".partial")
    facts = provenance(threads=tables[0].threads)
    found = precision_study(tables, evaluations, load_space(args), args.found, args.rounds, partial)
    study = {**facts, **found}
    write_json(args.output, study)
    shutil.rmtree(partial, ignore_errors=True)
    print(precisions_section(study))
    print(f"Wrote {args.output}")


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
