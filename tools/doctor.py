#!/usr/bin/env python
"""Checks this installation and this machine, and says how to mend what is broken.

PyTorch, torchvision and Detectron2 and whether they fit together, GPUs, inference engines, data
sets, W&B, disk space, shared memory, threads, and whether runs can be written here. The exit code
is 1 where something that every run needs is broken.
"""

from __future__ import annotations

import argparse
import sys


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    from search.doctor.report import diagnose

    return diagnose(as_json=args.json)


if __name__ == "__main__":
    sys.exit(main(parse()))
