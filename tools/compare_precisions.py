#!/usr/bin/env python
"""Compares networks in int8 with the same in float: order, costs of options, networks found.

Two tables of this machine that differ in their precision alone name the setting. What is measured
is kept beside the output until the study is written, so that an interrupted one goes on.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from search.profiling.cli import add_profiling_arguments, check_counts, load_space


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
        "--networks", type=int, default=50, help="every other one without SE (default: 50)"
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
    from backbones.files import write_json
    from backbones.latency import LatencyTable
    from detection.engine.provenance import provenance
    from search.studies.precisions import precision_study, precisions_section

    check_counts(args, least_networks=2)
    tables = [LatencyTable.load(name) for name in args.tables]
    folder = args.output.with_suffix(".partial")
    space = load_space(args)
    facts = provenance(threads=tables[0].threads)
    found = precision_study(tables, space, args.found, args.networks, args.rounds, folder)
    study = {**facts, **found}
    write_json(args.output, study)
    shutil.rmtree(folder)
    print(precisions_section(study))
    print(f"Wrote {args.output}")


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
