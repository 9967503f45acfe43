#!/usr/bin/env python
"""Repeats the demo with other seeds and threads, and tells how much of its outcome is chance.

A study that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="from 0 on (default: 5)")
    parser.add_argument(
        "--threads",
        nargs="+",
        type=int,
        default=[1, 2],
        help="of the demos, and of the searches to compare with theirs (default: 1 2)",
    )
    parser.add_argument("--workers", type=int, default=1, help="repetitions at a time (default: 1)")
    parser.add_argument(
        "--folder", type=Path, default=Path("output/demo_repeats"), help="of the runs"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="JSON file in which the study is kept"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from backbones.errors import UserError
    from backbones.files import write_json
    from search.studies.demo_repeats import demo_repeats, demo_repeats_section

    for name in ("seeds", "workers"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; expected 1 or more")
    if min(args.threads) < 1:
        raise UserError(f"--threads is {min(args.threads)}; expected 1 or more")
    threads = list(dict.fromkeys(args.threads))
    study = demo_repeats(args.seeds, threads, args.folder, args.workers)
    write_json(args.output, study)
    print(demo_repeats_section(study))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
