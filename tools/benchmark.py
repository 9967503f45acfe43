#!/usr/bin/env python
"""Measures costs side by side in one run and prints their ratios."""

from __future__ import annotations

import argparse
import json

from backbones.files import write_json


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    step = commands.add_parser(
        "search-step",
        help="a training step of the supernet against one of the largest fixed network",
    )
    step.add_argument("--space", default="imagenet", help="search space (default: imagenet)")
    step.add_argument("--table", default="pixel1", help="latency table (default: pixel1)")
    step.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    step.add_argument("--batch", type=int, default=32, help="images per step (default: 32)")
    step.add_argument("--size", type=int, default=224, help="side in pixels (default: 224)")
    step.add_argument("--repeats", type=int, default=5, help="timed steps of each (default: 5)")
    scoring = commands.add_parser(
        "coco-scoring", help="AP by faster-coco-eval against AP by pycocotools, on one made-up set"
    )
    scoring.add_argument("--images", type=int, default=5000, help="(default: 5000)")
    scoring.add_argument("--detections", type=int, default=100, help="per image (default: 100)")
    data = commands.add_parser(
        "check-data", help="checking a made-up data set before a run: time and peak memory"
    )
    data.add_argument("--images", type=int, default=100_000, help="(default: 100000)")
    data.add_argument("--annotations", type=int, default=1_000_000, help="(default: 1000000)")
    helps = commands.add_parser("help", help="how long every tool takes to print its --help")
    helps.add_argument("--repeats", type=int, default=3, help="of every tool (default: 3)")
    busy = commands.add_parser(
        "busy-machine", help="a search step alone and beside a busy process, by how threads wait"
    )
    busy.add_argument("--threads", type=int, default=2, help="(default: 2)")
    busy.add_argument("--repeats", type=int, default=5, help="timed steps of each (default: 5)")
    for command in (step, scoring, data, helps, busy):
        command.add_argument("--output", help="also write the figures to this JSON file")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from search.studies.benchmarks.busy_machine import busy_machine_report
    from search.studies.benchmarks.coco_scoring import scoring_report
    from search.studies.benchmarks.data_checks import data_report
    from search.studies.benchmarks.search_step import search_step_report
    from search.studies.benchmarks.tool_help import help_report

    if args.command == "coco-scoring":
        report = scoring_report(args.images, args.detections)
    elif args.command == "check-data":
        report = data_report(args.images, args.annotations)
    elif args.command == "help":
        report = help_report(args.repeats)
    elif args.command == "busy-machine":
        report = busy_machine_report(args.threads, args.repeats)
    else:
        report = search_step_report(
            args.space, args.table, args.device, args.batch, args.size, args.repeats
        )
    print(json.dumps(report, indent=2))
    if args.output:
        write_json(args.output, report)


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
