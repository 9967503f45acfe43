#!/usr/bin/env python
"""Checks that requirements.lock has a wheel of everything, for every system and Python.

Asks the package index that uv is configured for; nothing is installed. Ends with the table of
docs/installation.md: what is left out where. `make lock-check` runs it.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--lock", type=Path, default=Path("requirements.lock"), metavar="FILE", help="the lock"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from backbones.errors import UserError
    from detection.installation.lock import check_lock, systems_table

    if not args.lock.is_file():
        raise UserError(f"no lock at '{args.lock}'; start it at the top of the checkout")
    for line in check_lock(args.lock):
        print(line, flush=True)
    print(f"\n{systems_table()}")


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
