#!/usr/bin/env python
"""Profiles this machine: a latency table for a search space, or the runtime of named networks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.errors import UserError
from backbones.files import write_json
from backbones.precisions import PRECISIONS
from search.command_line.registry import tool_command
from search.profiling.cli import (
    add_elsewhere_arguments,
    add_profiling_arguments,
    check_counts,
    check_elsewhere,
    image_size,
    load_space,
    measure_elsewhere,
    say_prepared,
)

if TYPE_CHECKING:
    from backbones.inference import Engine
    from detection.deployment import Deployment

QUICK_ROUNDS, QUICK_NETWORKS = 3, 8

EPILOG = """
examples:
  a table of this CPU for the paper's space, one thread, ONNX Runtime:
    %(prog)s --engine onnxruntime --input-size 224x224 --output configs/latency/my_cpu.json
  the same of networks that are deployed in int8:
    %(prog)s --engine onnxruntime --precision int8 --output configs/latency/my_cpu_int8.json
  the same, judged on 100 networks that are measured in the same turns:
    %(prog)s --engine onnxruntime --output my_cpu.json --evaluation output/my_cpu_report.json
  for a detector: the backbone at detection resolution under a feature pyramid:
    %(prog)s --engine litert --task detection --input-size 480x640 --output my_detector.json
  a table of a board: convert here, measure there, by the script alone or over ssh:
    %(prog)s --engine litert --prepare output/board
    %(prog)s --collect output/board --host pi@raspberrypi --output my_board.json
  two networks, measured whole, beside what a table predicts:
    %(prog)s --engine onnxruntime --architectures spnas_100 output/search/architecture.json \\
        --table configs/latency/my_cpu.json
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_profiling_arguments(parser)
    parser.add_argument(
        "--engine",
        metavar="ENGINE",
        help="inference engine: torch, onnxruntime, litert",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=tuple(PRECISIONS),
        help="of weights and feature maps, where the engine has it: int8 is static post-training "
        "quantisation of both, fp16 the engine's own half precision (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="of one inference (default: 1)")
    parser.add_argument(
        "--input-size", default="224x224", metavar="HxW", help="of the image (default: 224x224)"
    )
    parser.add_argument(
        "--task",
        default="classification",
        choices=("classification", "detection"),
        help="what the backbone is part of: a classifier, or a feature pyramid without the "
        "classification head (default: classification)",
    )
    parser.add_argument(
        "--fpn-channels", type=int, default=256, help="of every pyramid level (default: 256)"
    )
    parser.add_argument(
        "--networks",
        type=int,
        default=32,
        help="random networks that the table's correction is fitted on; 0 leaves it out "
        "(default: 32)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a rough table in a minute or two, marked as such: --rounds {QUICK_ROUNDS} "
        f"--networks {QUICK_NETWORKS}",
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument(
        "--evaluation",
        type=Path,
        metavar="FILE",
        help="also measure networks that the correction does not know, in the same turns, and "
        f"write this report of the table's error, as {tool_command('evaluate_latency.py')} does",
    )
    parser.add_argument(
        "--evaluation-networks",
        type=int,
        default=100,
        metavar="N",
        help="with --evaluation: how many, every other one without SE (default: 100)",
    )
    parser.add_argument(
        "--architectures",
        nargs="+",
        metavar="NAME",
        help="measure these networks instead: names, or paths of architecture files",
    )
    parser.add_argument("--table", help="with --architectures: predict them by this table as well")
    parser.add_argument(
        "--breakdown",
        action="store_true",
        help="with --architectures: runtime by kind of operation, from the engine's profiler",
    )
    add_elsewhere_arguments(parser)
    return parser.parse_args()


def table_output(args: argparse.Namespace) -> Path:
    if args.output is None:
        raise UserError("--output is missing: the table to write, e.g. configs/latency/my.json")
    path: Path = args.output
    return path


def deployment_of(args: argparse.Namespace) -> Deployment:
    from detection.deployment import Deployment

    size = image_size(args.input_size)
    return Deployment(args.task, size, fpn_channels=args.fpn_channels)


def engine_of(args: argparse.Namespace) -> Engine:
    from backbones.inference import make_engine

    engine = make_engine(args.engine, args.device, args.threads, args.precision)
    engine.check_conversion()
    return engine


def prepare(args: argparse.Namespace) -> None:
    from backbones.inference import make_engine
    from search.profiling.elsewhere import prepare_table

    prepare_table(
        args.prepare,
        load_space(args),
        make_engine(args.engine, precision=args.precision),
        deployment_of(args),
        args.device,
        args.threads,
        args.rounds,
        args.networks,
        args.evaluation_networks if args.evaluation else 0,
    )
    report = ("--evaluation", "REPORT") if args.evaluation else ()
    collect = ("--collect", str(args.prepare), "--output", "TABLE", *report)
    say_prepared(args.prepare, tool_command("profile_latency.py", *collect))


def collect(args: argparse.Namespace) -> None:
    from search.profiling.elsewhere import collect_table

    output = table_output(args)
    measure_elsewhere(args)
    table = collect_table(args.collect, output, args.evaluation)
    print(f"Wrote {output} of {table.device}{f', {table.warning}' if table.warning else ''}")


def profile(args: argparse.Namespace) -> None:
    from search.profiling.profiler import profile_space

    output = table_output(args)
    table = profile_space(
        load_space(args),
        engine_of(args),
        deployment_of(args),
        output,
        args.rounds,
        args.networks,
        args.evaluation,
        args.evaluation_networks,
    )
    print(f"Wrote {output}{f', {table.warning}' if table.warning else ''}")


def measure_networks(args: argparse.Namespace) -> None:
    from backbones.factory import load_architecture
    from backbones.latency import LatencyTable
    from search.profiling.networks import measure_architectures, networks_table, operators_table

    engine, deployment = engine_of(args), deployment_of(args)
    architectures = [load_architecture(name) for name in args.architectures]
    known = LatencyTable.load(args.table) if args.table else None
    space = load_space(args)
    rows = measure_architectures(architectures, engine, deployment, args.rounds, known, space)
    print(networks_table(rows))
    for architecture in architectures if args.breakdown else ():
        print(f"\n{architecture.name}\n{operators_table(architecture, engine, deployment)}")
    if args.output:
        write_json(args.output, rows)


def main(args: argparse.Namespace) -> None:
    if args.quick:
        args.rounds, args.networks = QUICK_ROUNDS, QUICK_NETWORKS
    check_counts(args, least_networks=0)
    if args.evaluation_networks < 2:
        raise UserError(f"--evaluation-networks is {args.evaluation_networks}; expected 2 or more")
    image_size(args.input_size)  # refuses what is none
    check_elsewhere(args)
    if args.engine is None and not args.collect:
        raise UserError("--engine is missing; expected torch, onnxruntime or litert")
    if args.prepare:
        prepare(args)
    elif args.collect:
        collect(args)
    elif args.architectures:
        measure_networks(args)
    else:
        profile(args)


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
