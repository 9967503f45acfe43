#!/usr/bin/env python
"""Detectors of handwritten digits by spnas auto, whose command it prints: in minutes, on a CPU."""

from __future__ import annotations

import argparse
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/demo"),
        help="folder of all that is made; a demo that was interrupted goes on there "
        "(default: output/demo)",
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from search.studies.demo import run_demo

    run_demo(args.output)


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
