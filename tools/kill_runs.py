#!/usr/bin/env python
"""Kills short runs of every kind, lets them go on, and compares what they leave.

A run of each kind comes to its end undisturbed. Others are killed with kill -9, with all that they
started, at moments spread over the run, every other one after its last step, some of them twice;
the same command then goes on. What they leave has to be what the undisturbed run left: times and
logs apart, bit for bit. The command started again makes the kills that are not made yet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backbones.errors import UserError


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, help="of every kind (default: 10)")
    parser.add_argument(
        "--kinds",
        nargs="+",
        metavar="KIND",
        help="of search, classifier, detector, 'detector search', comparison, profile, tuning "
        "(default: all)",
    )
    parser.add_argument("--folder", type=Path, default=Path("output/kills"), help="for the runs")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from search.studies.kills.study import kills_table, run_study

    if args.kills < 1:
        raise UserError(f"--kills is {args.kills}; expected 1 or more")
    print(kills_table(run_study(args.kills, args.kinds, args.folder, args.output)))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
