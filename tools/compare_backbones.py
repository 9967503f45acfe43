#!/usr/bin/env python
"""Compares backbones under one detector: the paper's Tables I and III, with seeds.

Trains what is not trained yet, a run for every network and seed, or collects finished runs; all
have to be of one recipe. Leaves comparison.json, .md, .csv and .png in the output folder.
Trailing KEY VALUE pairs change every detector.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backbones.errors import UserError
from backbones.precisions import PRECISIONS
from search.studies.arguments import add_workers, check_counts, study_parser

EPILOG = """
examples:
  networks of the zoo on COCO, three seeds each, on eight GPUs:
    %(prog)s --config-file configs/detection/mask_rcnn_spnas_fpn_1x.yaml --seeds 3 \\
        --architectures spnas_100 mnasnet_b1 mine=output/search/architecture.json \\
        --num-gpus 8 --output output/comparison
  the same, eight runs at once on one GPU each:
    %(prog)s --config-file configs/detection/mask_rcnn_spnas_fpn_1x.yaml --seeds 3 \\
        --architectures spnas_100 mnasnet_b1 mine=output/search/architecture.json \\
        --workers 8 --num-gpus 1 --output output/comparison
  the same, each a job of a Slurm cluster:
    %(prog)s --config-file configs/detection/mask_rcnn_spnas_fpn_1x.yaml --seeds 3 \\
        --architectures spnas_100 mnasnet_b1 mine=output/search/architecture.json \\
        --cluster slurm --cluster-options partition=gpu gpus_per_node=1 cpus_per_task=8 \\
        --num-gpus 1 --output output/comparison
  runs that are finished already:
    %(prog)s --runs output/mask_rcnn_a output/mask_rcnn_b --output output/comparison
"""


def parse() -> argparse.Namespace:
    parser = study_parser(__doc__, EPILOG)
    parser.add_argument("--config-file", nargs="+", default=[], metavar="FILE", help="detectors")
    parser.add_argument(
        "--architectures",
        nargs="+",
        default=[],
        metavar="[NAME=]NETWORK",
        help="for every detector, instead of the network that its file names",
    )
    parser.add_argument(
        "--classifier-config-file",
        metavar="FILE",
        help="train every network as a classifier first; the detector starts from its weights",
    )
    parser.add_argument(
        "--random",
        type=int,
        default=0,
        metavar="N",
        help="a row of N networks drawn at the target of --search-config-file, for the first "
        "detector; each is trained once, with the seeds in turn",
    )
    parser.add_argument("--search-config-file", default="search/digits.yaml", metavar="FILE")
    parser.add_argument("--seeds", type=int, default=1, help="of every network (default: 1)")
    parser.add_argument("--num-gpus", metavar="N", help="of every run, as its own command takes it")
    add_workers(
        parser,
        "runs at once, each with its share of the cores and the GPUs; the detector's runtime and "
        "speed are then those of a shared machine",
    )
    parser.add_argument(
        "--engine",
        metavar="ENGINE",
        help="measure all backbones with this engine (torch, onnxruntime, litert) on one CPU "
        "thread, in turns, when all runs have ended; as deployed in the setting of the detector's "
        "latency table",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=tuple(PRECISIONS),
        help="with --engine: of weights and feature maps (default: %(default)s)",
    )
    parser.add_argument(
        "--runs", nargs="+", type=Path, default=[], metavar="FOLDER", help="finished runs"
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="set the paper's own figures beside, marked with a dagger",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    check_counts(args, seeds=1, random=0)
    if not args.config_file and (args.random or not args.runs):
        raise UserError("nothing to compare; name detectors (--config-file) or runs (--runs)")
    if args.precision != "fp32" and not args.engine:
        raise UserError(
            f"--precision is {args.precision}, but nothing is measured; name an --engine as well"
        )


def main(args: argparse.Namespace) -> None:
    from backbones.inference import make_engine
    from search.config import load_search_config
    from search.studies.comparison.jobs import (
        entries,
        job_of,
        random_entries,
        train,
        with_measured_runtimes,
    )
    from search.studies.comparison.runs import load_run
    from search.studies.comparison.tables import write_comparison
    from search.studies.workers import workers_of

    check(args)
    workers = workers_of(args, args.output)
    engine = make_engine(args.engine, precision=args.precision) if args.engine else None
    if engine:
        engine.check_conversion()
    rows = entries(args.config_file, args.architectures)
    if args.random:
        search_cfg = load_search_config(args.search_config_file)
        first = args.config_file[0]
        rows += random_entries(first, search_cfg, args.random, args.seeds, args.output)
    finished = collected = [load_run(folder) for folder in args.runs]
    tables = write_comparison(collected, args.output, args.paper) if collected else ""
    arguments = ("--num-gpus", args.num_gpus) if args.num_gpus is not None else ()
    jobs = [
        job_of(row, seed, args.output, args.classifier_config_file, arguments, args.opts)
        for seed in range(args.seeds)
        for row in rows
        if row.seed in (None, seed)
    ]
    for runs in train(jobs, workers):
        finished = [*collected, *runs]
        tables = write_comparison(finished, args.output, args.paper, workers)
    if engine:
        finished = with_measured_runtimes(finished, engine)
        tables = write_comparison(finished, args.output, args.paper, workers)
    print(tables)


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
