#!/usr/bin/env python
"""Repeats the demo with other seeds and threads, and tells how much of its outcome is chance.

A study that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from search.studies.arguments import add_study_file, add_workers, check_counts, study_parser


def parse() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="from 0 on (default: 5)")
    parser.add_argument(
        "--threads",
        nargs="+",
        type=int,
        default=[1, 2],
        help="of the demos, and of the searches to compare with theirs (default: 1 2)",
    )
    add_workers(parser, "repetitions at a time")
    parser.add_argument(
        "--folder", type=Path, default=Path("output/demo_repeats"), help="of the runs"
    )
    add_study_file(parser, keys=False)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from backbones.errors import UserError
    from backbones.files import write_json
    from search.studies.demo_repeats import demo_repeats, demo_repeats_section
    from search.studies.workers import workers_of

    check_counts(args, seeds=1)
    workers = workers_of(args, args.output)
    if min(args.threads) < 1:
        raise UserError(f"--threads is {min(args.threads)}; expected 1 or more")
    threads = list(dict.fromkeys(args.threads))
    study = demo_repeats(args.seeds, threads, args.folder, workers)
    write_json(args.output, study)
    print(demo_repeats_section(study))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
