#!/usr/bin/env python
"""Measures costs side by side in one run and prints their ratios."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from backbones.files import write_json


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    step = commands.add_parser(
        "search-step",
        help="a training step of the supernet against one of the largest fixed network",
    )
    step.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    step.add_argument("--batch", type=int, default=32, help="images per step (default: 32)")
    step.add_argument("--size", type=int, default=224, help="side in pixels (default: 224)")
    step.add_argument("--repeats", type=int, default=5, help="timed steps of each (default: 5)")
    step.add_argument("--threads", type=int, help="of the CPU (default: as many as PyTorch takes)")
    launches = commands.add_parser(
        "operations", help="how many operations a search step launches, and deciding alone"
    )
    for command in (step, launches):
        command.add_argument("--space", default="imagenet", help="search space (default: imagenet)")
        command.add_argument("--table", default="pixel1", help="latency table (default: pixel1)")
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
    classifier = commands.add_parser(
        "classifier-step", help="the classifier's training step against timm's own"
    )
    classifier.add_argument("--size", type=int, default=224, help="side (default: 224)")
    detector = commands.add_parser(
        "detector-step", help="Mask R-CNN's steps on spnas_100 against Detectron2's on R50-FPN"
    )
    detector.add_argument(
        "--size", nargs=2, type=int, default=(800, 1216), metavar=("H", "W"), help="(800 1216)"
    )
    for command, batch in ((classifier, 32), (detector, 2)):
        command.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
        command.add_argument(
            "--batch", type=int, default=batch, help=f"images per training step (default: {batch})"
        )
        command.add_argument(
            "--precision", default="float32", choices=("float32", "float16", "bfloat16")
        )
        command.add_argument("--repeats", type=int, default=5, help="timed rounds (default: 5)")
    loader = commands.add_parser(
        "loader",
        help="images that a core makes ready in a second: folder, tar files, Detectron2's mapper",
    )
    loader.add_argument("--images", type=int, default=200, help="a round (default: 200)")
    loader.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    for command in (step, launches, scoring, data, helps, busy, classifier, detector, loader):
        command.add_argument("--output", help="also write the figures to this JSON file")
    _add_gpu(commands.add_parser("gpu", help="all that a GPU is to be asked, in eight minutes"))
    return parser.parse_args()


def _add_gpu(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Checks every stage on a GPU for some steps, and measures the search's, the classifier's "
        "and the detector's steps, a latency table, and the full-size recipes' first steps. Every "
        "part is written when it is measured."
    )
    command.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    command.add_argument(
        "--tiny", action="store_true", help="everything small, to try it on a CPU in some minutes"
    )
    command.add_argument(
        "--only", nargs="+", default=(), metavar="PART", help="some of a b c d e f (default: all)"
    )
    command.add_argument(
        "--precisions",
        nargs="+",
        default=(),
        metavar="PRECISION",
        help="some of float32 float16 bfloat16, for b, c and d (default: all that the device has)",
    )
    command.add_argument(
        "--folder", type=Path, default=Path("output/gpu"), help="for runs (default: output/gpu)"
    )
    command.add_argument(
        "--output", type=Path, help="JSON file; other parts in it stay (default: FOLDER/gpu.json)"
    )


def main(args: argparse.Namespace) -> None:
    if args.command == "gpu":
        from search.studies.benchmarks.gpu.report import gpu_report
        from search.studies.benchmarks.gpu.setting import Setting

        output = args.output or args.folder / "gpu.json"
        setting = Setting(args.device, args.tiny, args.folder, tuple(args.precisions))
        gpu_report(setting, args.only, output)
        print(f"Wrote {output}")
        return
    _measure(args)


def _measure(args: argparse.Namespace) -> None:
    import torch

    from search.studies.benchmarks.busy_machine import busy_machine_report
    from search.studies.benchmarks.classifier_step import classifier_step_report
    from search.studies.benchmarks.coco_scoring import scoring_report
    from search.studies.benchmarks.data_checks import data_report
    from search.studies.benchmarks.detector_step import detector_step_report
    from search.studies.benchmarks.loader import loader_report
    from search.studies.benchmarks.operations import operations_report
    from search.studies.benchmarks.search_step import search_step_report
    from search.studies.benchmarks.tool_help import help_report

    if args.command == "coco-scoring":
        report = scoring_report(args.images, args.detections)
    elif args.command == "operations":
        report = operations_report(args.space, args.table)
    elif args.command == "check-data":
        report = data_report(args.images, args.annotations)
    elif args.command == "help":
        report = help_report(args.repeats)
    elif args.command == "busy-machine":
        report = busy_machine_report(args.threads, args.repeats)
    elif args.command == "classifier-step":
        report = classifier_step_report(
            args.device, args.batch, args.size, args.precision, args.repeats
        )
    elif args.command == "detector-step":
        size = (args.size[0], args.size[1])
        report = detector_step_report(args.device, args.batch, size, args.precision, args.repeats)
    elif args.command == "loader":
        report = loader_report(args.images, args.repeats)
    else:
        if args.threads:
            torch.set_num_threads(args.threads)
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
