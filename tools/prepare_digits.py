#!/usr/bin/env python
"""Makes the embedded digits data set and prints what is in it."""

from __future__ import annotations

import argparse


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", help="folder of the data sets (default: $DETECTRON2_DATASETS or 'datasets')"
    )
    parser.add_argument("--force", action="store_true", help="make it anew even if it is there")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from detection.data.digits import prepare_digits, read_manifest, summary_table

    folder = prepare_digits(args.root, force=args.force)
    manifest = read_manifest(folder)
    assert manifest is not None
    print(folder)
    print(summary_table(manifest))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
