#!/usr/bin/env python
"""Packs a folder of images into tar files, for storage that is slow with small files."""

from __future__ import annotations

import argparse
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: %(prog)s datasets/imagenet datasets/imagenet_shards",
    )
    parser.add_argument("source", type=Path, help="folder with train/<class>/* and val/<class>/*")
    parser.add_argument("target", type=Path, help="folder of the tar files")
    parser.add_argument(
        "--megabytes", type=float, default=1000.0, help="of a tar file, about (default: 1000)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the order in the tar files (default: 0)"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from backbones.errors import UserError
    from search.classification.shards import write_shards

    if args.megabytes <= 0:
        raise UserError(f"--megabytes is {args.megabytes:g}; expected more than 0")
    written = write_shards(args.source, args.target, round(args.megabytes * 1e6), args.seed)
    print(f"{len(written)} tar files in {args.target}: CLASSIFICATION.DATASET {args.target}")


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
