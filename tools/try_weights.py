#!/usr/bin/env python
"""Loads every network's weights in every form that people have them in; compares the logits."""

from __future__ import annotations

import argparse
import json

from backbones.files import write_json


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", help="also write the differences to this JSON file")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from search.studies.weights import weights_report

    report = weights_report()
    print(json.dumps(report, indent=2))
    if args.output:
        write_json(args.output, report)


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
